"""Ablations of many heads on one batch of prompts: what is replayed together, and what is measured.

All heads of a layer are ablated together, in pieces of (head, prompt) rows that are small enough to stay
in the cache (docs/method.md sections 2 and 3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..ablations import ABLATIONS, DONORS
from ..model.decoder import Decoder
from ..model.direct_effect import check_error
from ..model.memory import BatchLimit, attempt
from ..model.products import dot
from ..model.replay import Replay, cut_lengths
from .ablation import ablated_rows, replacement
from .batches import Recorded, stored
from .sweep_result import SweepResult, measured_of, zeros_where_measured
from .workers import Workers


def cost(model: Decoder, layer: int) -> float:
    """Layers run per row: all later ones, and about half of the ablated one (its MLP)."""
    return model.n_layers - layer - 0.5


@dataclass
class Rows:
    """Ablations of heads of one layer that are replayed together, a row for each (head, prompt).

    Only positions before `length` are replayed.
    """

    ablation: str
    layer: int
    head: Int[Tensor, " row"]
    prompt: Int[Tensor, " row"]
    length: int

    @property
    def tokens(self) -> int:
        return len(self.head) * self.length

    def halves(self) -> list[Rows]:
        pairs = zip(self.head.tensor_split(2), self.prompt.tensor_split(2), strict=True)
        return [replace(self, head=head, prompt=prompt) for head, prompt in pairs]


class SweepBatch:
    """A batch of prompts whose clean pass is recorded, ready for one ablation after the other."""

    def __init__(
        self,
        model: Decoder,
        recorded: Recorded,
        mean_z: Tensor | None,
        selected: Bool[Tensor, "prompt position layer head"] | None,
        limit: BatchLimit,
    ) -> None:
        self.model, self.clean, self.donor_z = model, recorded.clean, recorded.donor_z
        self.mean_z, self.limit = mean_z, limit
        self.selected = None if selected is None else recorded.of(selected).to(model.device)
        self.quantities = measured_of(model)
        shape = (len(self.quantities), model.n_layers, model.n_heads, *self.clean.scale.shape)
        self.out = torch.empty(shape, dtype=self.clean.direct_effect.dtype, device=model.device)
        # Clean dot products with u that every replay is compared with: of the final residual, and of
        # what all attention and MLP outputs from each layer on add to it, [layer + 1, …].
        u, recording = self.clean.targets.directions, self.clean.recording
        self.clean_projection = dot(recording.residual[-1], u)
        heads, mlps = [], []
        for at, layer in enumerate(model.layers):
            of_attention, of_mlp = recording.attention_scale[at], recording.mlp_scale[at]
            added = layer.attention_write.projection(recording.attention_out[at], u, of_attention)
            heads.append(added)
            mlps.append(layer.mlp_write.projection(recording.mlp_out[at], u, of_mlp))
        self.clean_heads, self.clean_mlps = _suffix_sums(heads), _suffix_sums(mlps)

    def run(
        self, replay: Replay, workers: Workers, ablation: str, chosen: dict[int, list[int]]
    ) -> Iterator[float]:
        """Ablate heads, given by layer; yields the share of the work done since the last one."""
        self.out.fill_(torch.nan)
        pieces = [
            piece
            for layer, heads in chosen.items()
            for piece in self._pieces(ablation, layer, heads)
        ]
        for length in {piece.length for piece in pieces}:
            replay.learn_arguments_of(length)
        work = sum(self._work(piece) for piece in pieces)
        for done in workers.map(self._ablate, pieces):
            yield self._work(done) / work
        if not pieces:
            yield 1.0

    def _work(self, piece: Rows) -> float:
        return piece.tokens * cost(self.model, piece.layer)

    def _pieces(self, ablation: str, layer: int, heads: list[int]) -> list[Rows]:
        """All rows of a layer, longest first, cut into pieces of about equal size that fit into memory."""
        prompts, positions = self.clean.scale.shape
        rows = torch.cartesian_prod(torch.tensor(heads), torch.arange(prompts))
        lengths = torch.full((len(rows),), positions)
        if self.selected is not None:
            lengths = self._needed(layer).cpu()[rows[:, 1], rows[:, 0]]
            order = lengths.argsort(descending=True, stable=True)[: int((lengths > 0).sum())]
            rows, lengths = rows[order], lengths[order]
        rows, total = rows.to(self.model.device), int(lengths.sum())
        budget = total / max(1, -(-total // self.limit.size))
        pieces, first = [], 0
        while first < len(rows):
            length = int(lengths[first])
            count = max(1, min(math.ceil(budget / length), self.limit.size // length))
            head, prompt = rows[first : first + count].T
            pieces.append(Rows(ablation, layer, head, prompt, length))
            first += count
        return pieces

    def _needed(self, layer: int) -> Int[Tensor, "prompt head"]:
        """How many positions of each head to replay: up to its last selected one, rounded up to one of a few
        lengths; 0 where none is selected."""
        assert self.selected is not None
        selected = self.selected[:, :, layer]
        ends = torch.arange(1, selected.shape[1] + 1, device=selected.device)
        return cut_lengths((selected * ends[:, None]).amax(1), selected.shape[1])

    @torch.no_grad()
    def _ablate(self, replay: Replay, piece: Rows) -> Rows:
        """Measure some rows; where they do not fit into memory, in halves."""
        pending = [piece]
        while pending:
            rows = pending.pop()
            if rows.tokens <= self.limit.size or len(rows.head) == 1:
                measured = attempt(partial(self._measure, replay, rows))
                if measured is not None:
                    self._keep(rows, measured)
                    continue
                self.limit.halve(rows.tokens, least=rows.length)
            pending += rows.halves()
        return piece

    def _keep(self, rows: Rows, measured: Float[Tensor, "quantity row position"]) -> None:
        if self.selected is not None:
            wanted = self.selected[rows.prompt, : rows.length, rows.layer, rows.head]
            measured = measured.masked_fill(~wanted, torch.nan)
        self.out[:, rows.layer, rows.head, rows.prompt, : rows.length] = measured

    def _delta_z(self, rows: Rows) -> Float[Tensor, "row position d_head"]:
        z = self.clean.recording.z[rows.layer]
        donors = DONORS in ABLATIONS[rows.ablation].needs
        after = replacement(
            self.model,
            rows.layer,
            rows.ablation,
            z=z,
            donor_z=self.donor_z[rows.layer] if donors else None,
            mean_z=self.mean_z,
        ).expand_as(z)
        at = (rows.prompt, slice(rows.length), rows.head)
        return after[at] - z[at]

    def _measure(self, replay: Replay, rows: Rows) -> Float[Tensor, "quantity row position"]:
        """Every quantity for some rows; a row whose z does not change is unchanged."""
        delta_z = self._delta_z(rows)
        scale = self.clean.scale[rows.prompt, : rows.length]
        effect = self.clean.direct_effect[rows.prompt, : rows.length, rows.layer, rows.head]
        zero = torch.zeros_like(effect)
        columns = {name: zero for name in self.quantities}
        columns |= {"ablated_direct_effect": effect, "ablated_scale": scale}
        measured = torch.stack([columns[name] for name in self.quantities])
        changed = delta_z.ne(0).flatten(1).any(1)
        if changed.any():
            some = replace(rows, head=rows.head[changed], prompt=rows.prompt[changed])
            changes = self._replay_rows(replay, some, delta_z[changed])
            measured[:, changed] = torch.stack([changes[name] for name in self.quantities])
        return measured

    def _replay_rows(
        self, replay: Replay, rows: Rows, delta_z: Float[Tensor, "row position d_head"]
    ) -> dict[str, Float[Tensor, "row position"]]:
        layer, at = rows.layer, (rows.prompt, slice(rows.length))
        u, scale = self.clean.targets.directions[at], self.clean.scale[at]
        ablated = ablated_rows(
            self.model,
            self.clean.recording,
            layer,
            head=rows.head,
            prompt=rows.prompt,
            delta_z=delta_z,
        )
        replayed = ablated.replay(replay, u)
        first_mlp = layer + 1 if self.model.layers[layer].parallel else layer
        heads = (replayed.heads - self.clean_heads[layer + 1][at]) / scale
        mlps = (replayed.mlps - self.clean_mlps[first_mlp][at]) / scale
        write, sigma = self.model.layers[layer].attention_write, ablated.scales[layer][0]
        delta_effect = write.projection(ablated.change, u, sigma) / scale
        ablated_scale = self.model.final_norm.scale(replayed.residual)
        projection = dot(replayed.residual, u)
        delta_logit = projection / ablated_scale - self.clean_projection[at] / scale
        effect = self.clean.direct_effect[(*at, layer, rows.head)]
        return {
            "ablated_direct_effect": effect + delta_effect,
            "delta_logit": delta_logit,
            "self_repair": delta_logit - delta_effect,
            "from_heads": heads,
            "from_mlps": mlps,
            "from_post_norms": replayed.post_norms / scale,
            "from_norm": projection * (1 / ablated_scale - 1 / scale),
            "ablated_scale": ablated_scale,
        }

    def result(self, chosen: dict[int, list[int]]) -> SweepResult:
        """A copy of what the last `run` measured, once its terms are known to add up.

        Raises:
            ExactnessError: they do not.
        """
        out = self.out.permute(0, 3, 4, 1, 2)
        values = {n: stored(array.clone()) for n, array in zip(self.quantities, out, strict=True)}
        parts = values["from_heads"] + values["from_mlps"] + values["from_norm"]
        if self.model.has_post_norms:
            parts = parts + values["from_post_norms"]
        else:
            values["from_post_norms"] = zeros_where_measured(values["from_norm"])
        asked = torch.zeros(parts.shape[2:], dtype=torch.bool)
        for layer, heads in chosen.items():
            asked[layer, heads] = True
        asked = asked.expand(parts.shape)
        if self.selected is not None:
            asked = asked & self.selected.cpu()
        differences = (values["self_repair"] - parts).abs()[asked]
        # NaN in an ablated run stays NaN: refused.
        error = float(differences.max()) if len(differences) else 0.0
        check_error("decomposition", error, self.model.dtype_name)
        return SweepResult(
            direct_effect=stored(self.clean.direct_effect),
            scale=stored(self.clean.scale),
            conservation_error=self.clean.conservation_error,
            decomposition_error=error,
            has_post_norms=self.model.has_post_norms,
            **values,
        )


def _suffix_sums(layers: list[Tensor]) -> list[Tensor]:
    """The sum over all layers from each one on; the last entry, after the last layer, is zero."""
    sums = [torch.zeros_like(layers[0])]
    for values in reversed(layers):
        sums.append(sums[-1] + values)
    return sums[::-1]
