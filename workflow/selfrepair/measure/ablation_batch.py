"""Ablations of many heads on one recorded batch of prompts: what sweeps of all tokens and of drawn ones share.

Rows, a (head, prompt) pair each, are replayed together in pieces that are small enough to stay in the
cache, and measured everywhere or at some places alone (docs/method.md sections 2 and 3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..ablations import ABLATIONS, DONORS
from ..model.decoder import Decoder
from ..model.memory import BatchLimit, attempt
from ..model.products import dot
from ..model.replay import Replay, Replayed
from ..model.summing import Places
from .ablation import AblatedRows, ablated_rows, replacement
from .batches import Recorded
from .sweep_result import measured_of
from .workers import Workers


def cost(model: Decoder, layer: int) -> float:
    """Layers run per row: all later ones, and about half of the ablated one (its MLP)."""
    return model.n_layers - layer - 0.5


@dataclass
class Rows:
    """Ablations of heads of one layer that are replayed together, a row for each (head, prompt).

    Only positions before `length` are replayed. places: where in the rows to measure, by default
    everywhere; instance: the number of each place in the results, with places. piece: the number of the
    piece that the rows belong to.
    """

    ablation: str
    layer: int
    head: Int[Tensor, " row"]
    prompt: Int[Tensor, " row"]
    length: int
    places: Places | None = None
    instance: Int[Tensor, " place"] | None = None
    piece: int = 0

    @property
    def tokens(self) -> int:
        return len(self.head) * self.length

    @property
    def at(self) -> tuple[Tensor, Tensor | slice]:
        """Where these rows are measured in [prompt, position, …] of the batch."""
        if self.places is None:
            return self.prompt, slice(self.length)
        return self.prompt[self.places.row], self.places.position

    @property
    def heads_at(self) -> Tensor:
        """The ablated head that belongs to the prompts of `at`."""
        return self.head if self.places is None else self.head[self.places.row]

    def looked_at(self, values: Float[Tensor, "row position *rest"]) -> Float[Tensor, ...]:
        """What is measured of values given everywhere in these rows."""
        return values if self.places is None else self.places.of(values)

    def measured_in(self, wanted: Bool[Tensor, " row"]) -> Bool[Tensor, " row_or_place"]:
        """Of what is measured, along its first axis, the part in some of the rows."""
        return wanted if self.places is None else wanted[self.places.row]

    def where(self, wanted: Bool[Tensor, " row"]) -> Rows:
        """Some of the rows, with what is measured in them."""
        rows = replace(self, head=self.head[wanted], prompt=self.prompt[wanted])
        if self.places is None:
            return rows
        assert self.instance is not None
        kept, number = wanted[self.places.row], wanted.cumsum(0) - 1
        rows.places = Places(number[self.places.row[kept]], self.places.position[kept])
        rows.instance = self.instance[kept]
        return rows

    def halves(self) -> list[Rows]:
        count = len(self.head)
        first = torch.arange(count, device=self.head.device) < (count + 1) // 2
        return [self.where(first), self.where(~first)]


def cut(lengths: Sequence[int], most: int) -> list[range]:
    """Rows, longest first, cut into consecutive pieces of about equal size, of `most` tokens at most."""
    total = sum(lengths)
    budget = total / max(1, -(-total // most))
    pieces, first = [], 0
    while first < len(lengths):
        count = max(1, min(math.ceil(budget / lengths[first]), most // lengths[first]))
        pieces.append(range(first, min(first + count, len(lengths))))
        first += count
    return pieces


class AblationBatch:
    """A batch of prompts whose clean pass is recorded, ready for one ablation after the other."""

    def __init__(
        self, model: Decoder, recorded: Recorded, mean_z: Tensor | None, limit: BatchLimit
    ) -> None:
        self.model, self.clean, self.donor_z = model, recorded.clean, recorded.donor_z
        self.mean_z, self.limit = mean_z, limit
        self.quantities = measured_of(model)
        # Clean dot products with u that every replay is compared with: of the final residual, of what
        # each MLP adds to it, and of what all attention and MLP outputs from each layer on add, [layer + 1, …].
        u, recording = self.clean.targets.directions, self.clean.recording
        self.clean_projection = dot(recording.residual[-1], u)
        heads, self.clean_mlp = [], []
        for at, layer in enumerate(model.layers):
            of_attention, of_mlp = recording.attention_scale[at], recording.mlp_scale[at]
            added = layer.attention_write.projection(recording.attention_out[at], u, of_attention)
            heads.append(added)
            self.clean_mlp.append(layer.mlp_write.projection(recording.mlp_out[at], u, of_mlp))
        self.clean_heads, self.clean_mlps = _suffix_sums(heads), _suffix_sums(self.clean_mlp)

    def run_pieces(
        self, replay: Replay, workers: Workers, pieces: Sequence[Rows]
    ) -> Iterator[float]:
        """Measure all rows; yields the share of the work done since the last one."""
        for length in {piece.length for piece in pieces}:
            replay.learn_arguments_of(length)
        work = sum(self._work(piece) for piece in pieces)
        for done in workers.map(self._ablate, pieces):
            self.piece_done(done)
            yield self._work(done) / work
        if not pieces:
            yield 1.0

    def piece_done(self, piece: Rows) -> None:
        """Called when all rows of a piece have been measured, by one thread alone."""

    def keep(
        self,
        rows: Rows,
        measured: Float[Tensor, "quantity ..."],
        changed: Bool[Tensor, " row"],
        more: Any,
    ) -> None:
        """Store what was measured of some rows; more: what `more_of` gave of those whose z changed."""
        raise NotImplementedError

    def first_mlp(self, layer: int) -> int:
        """The first layer whose MLP sees the ablation of a head."""
        return layer + 1 if self.model.layers[layer].parallel else layer

    def _work(self, piece: Rows) -> float:
        return piece.tokens * cost(self.model, piece.layer)

    @torch.no_grad()
    def _ablate(self, replay: Replay, piece: Rows) -> Rows:
        """Measure some rows; where they do not fit into memory, in halves."""
        pending = [piece]
        while pending:
            rows = pending.pop()
            if rows.tokens <= self.limit.size or len(rows.head) == 1:
                measured = attempt(partial(self._measure, replay, rows))
                if measured is not None:
                    self.keep(rows, *measured)
                    continue
                self.limit.halve(rows.tokens, least=rows.length)
            pending += rows.halves()
        return piece

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

    def _measure(
        self, replay: Replay, rows: Rows
    ) -> tuple[Float[Tensor, "quantity ..."], Bool[Tensor, " row"], Any]:
        """Every quantity for some rows; a row whose z does not change is unchanged.

        Also which rows have changed, and what `more_of` gave of these (None of none).
        """
        delta_z = self._delta_z(rows)
        scale = self.clean.scale[rows.at]
        effect = self.clean.direct_effect[(*rows.at, rows.layer, rows.heads_at)]
        zero = torch.zeros_like(effect)
        columns = {name: zero for name in self.quantities}
        columns |= {"ablated_direct_effect": effect, "ablated_scale": scale}
        measured = torch.stack([columns[name] for name in self.quantities])
        changed = delta_z.ne(0).flatten(1).any(1)
        if not changed.any():
            return measured, changed, None
        some = rows.where(changed)
        changes, more = self._replay_rows(replay, some, delta_z[changed])
        values = torch.stack([changes[name] for name in self.quantities])
        measured[:, rows.measured_in(changed)] = values
        return measured, changed, more

    def _replay_rows(
        self, replay: Replay, rows: Rows, delta_z: Float[Tensor, "row position d_head"]
    ) -> tuple[dict[str, Float[Tensor, "*place"]], Any]:
        layer, at = rows.layer, rows.at
        u, scale = self.clean.targets.directions[at], self.clean.scale[at]
        ablated = ablated_rows(
            self.model,
            self.clean.recording,
            layer,
            head=rows.head,
            prompt=rows.prompt,
            delta_z=delta_z,
        )
        replayed = self.replayed(replay, rows, ablated, u)
        heads = (replayed.heads - self.clean_heads[layer + 1][at]) / scale
        mlps = (replayed.mlps - self.clean_mlps[self.first_mlp(layer)][at]) / scale
        write, sigma = self.model.layers[layer].attention_write, ablated.scales[layer][0]
        change = rows.looked_at(ablated.change)
        sigma = None if sigma is None else rows.looked_at(sigma)
        delta_effect = write.projection(change, u, sigma) / scale
        ablated_scale = self.model.final_norm.scale(replayed.residual)
        projection = dot(replayed.residual, u)
        delta_logit = projection / ablated_scale - self.clean_projection[at] / scale
        effect = self.clean.direct_effect[(*at, layer, rows.heads_at)]
        columns = {
            "ablated_direct_effect": effect + delta_effect,
            "delta_logit": delta_logit,
            "self_repair": delta_logit - delta_effect,
            "from_heads": heads,
            "from_mlps": mlps,
            "from_post_norms": replayed.post_norms / scale,
            "from_norm": projection * (1 / ablated_scale - 1 / scale),
            "ablated_scale": ablated_scale,
        }
        return columns, self.more_of(rows, replayed, columns)

    def replayed(
        self, replay: Replay, rows: Rows, ablated: AblatedRows, directions: Tensor
    ) -> Replayed:
        """Replay rows and look at what is measured of them."""
        return ablated.replay(replay, directions, places=rows.places)

    def more_of(self, rows: Rows, replayed: Replayed, columns: dict[str, Tensor]) -> Any:
        """What is kept of a replay besides its columns."""
        return None


def _suffix_sums(layers: list[Tensor]) -> list[Tensor]:
    """The sum over all layers from each one on; the last entry, after the last layer, is zero."""
    sums = [torch.zeros_like(layers[0])]
    for values in reversed(layers):
        sums.append(sums[-1] + values)
    return sums[::-1]
