"""Ablate every head and measure what the rest of the model makes up for (docs/method.md sections 2, 3).

For each batch of prompts there is one clean pass; then, layer by layer, all heads of the layer are
ablated together, in chunks of (head, prompt) rows that are small enough to stay in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..ablations import ABLATIONS, DONORS, MEANS
from ..errors import InputError
from ..model.decoder import Decoder
from ..model.direct_effect import check_error
from ..model.memory import BatchLimit, attempt
from ..model.replay import Replay, cut_lengths, dot
from .ablation import ablated_rows, any_needs, check_ablations, replacement
from .batches import Progress, Recorded, checked_sizes, for_each_batch, stored, tensors_of
from .clean_pass import clean_pass
from .selection import check_heads
from .workers import Workers, side_by_side


@dataclass
class SweepResult:
    """What an ablation of each head did; arrays on the CPU, float32 (float64 for a float64 model).

    [prompt, position, layer, head] in logits, layer and head say which head was ablated, NaN where a
    head or token was not asked for: direct_effect (clean), ablated_direct_effect (of the ablated head, clean
    S), delta_logit, self_repair, from_heads, from_mlps, from_norm; ablated_scale is S' (residual
    units). [prompt, position]: scale, clean S. The errors are the largest seen, in logits.
    """

    direct_effect: Float[Tensor, "prompt position layer head"]
    ablated_direct_effect: Float[Tensor, "prompt position layer head"]
    delta_logit: Float[Tensor, "prompt position layer head"]
    self_repair: Float[Tensor, "prompt position layer head"]
    from_heads: Float[Tensor, "prompt position layer head"]
    from_mlps: Float[Tensor, "prompt position layer head"]
    from_norm: Float[Tensor, "prompt position layer head"]
    ablated_scale: Float[Tensor, "prompt position layer head"]
    scale: Float[Tensor, "prompt position"]
    conservation_error: float
    decomposition_error: float

    def arrays(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return tensors_of(self)


# Measured per (head, prompt) row; ablated_scale is the only one that is no number of logits.
PER_HEAD = tuple(
    f.name
    for f in fields(SweepResult)
    if f.name not in ("direct_effect", "scale", "conservation_error", "decomposition_error")
)


def sweep(
    model: Decoder,
    tokens: Int[Tensor, "prompt length"],
    *,
    donors: Int[Tensor, "prompt length"] | None = None,
    ablation: str = "resample",
    mean_z: Float[Tensor, "layer head d_head"] | None = None,
    heads: Iterable[tuple[int, int]] | None = None,
    selected: Bool[Tensor, "prompt position layer head"] | None = None,
    batch: int = 8,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> SweepResult:
    """Ablate each head at all positions of each prompt and decompose the self-repair.

    Args:
        model: from `load_model`.
        tokens: integers [prompt, position]; the last position is only a target.
        donors: for resample ablation, the prompts whose activations are put in place.
        ablation: a name of `ablations.ABLATIONS`: "resample" (needs donors), "mean", "zero".
        mean_z: for mean ablation, the mean z over a larger sample; by default over `tokens`.
        heads: (layer, head) pairs to ablate; by default all of them.
        selected: the tokens to measure of each head, such as its top tokens; by default all. What no
            selected token needs is not run: a prompt without one, the positions after the last.
        batch: prompts recorded at once; chunk: rows replayed at once (by default sized to the
            device). Neither changes the result beyond rounding, and both are halved, with a warning,
            where they do not fit into memory.
        progress: called with the share of the work done since the last call.
    Raises:
        InputError: tokens, donors, ablation, heads or selected that do not fit the model or each
            other; a model that does not fit into memory.
        ExactnessError: the conservation law or the decomposition is off by more than the bound.
    """
    results = sweep_each(
        model,
        tokens,
        {ablation: heads},
        donors=donors,
        mean_z=mean_z,
        selected=selected,
        batch=batch,
        chunk=chunk,
        progress=progress,
    )
    return results[ablation]


def sweep_each(
    model: Decoder,
    tokens: Int[Tensor, "prompt length"],
    heads: Mapping[str, Iterable[tuple[int, int]] | None],
    *,
    donors: Int[Tensor, "prompt length"] | None = None,
    mean_z: Float[Tensor, "layer head d_head"] | None = None,
    selected: Bool[Tensor, "prompt position layer head"] | None = None,
    batch: int = 8,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> dict[str, SweepResult]:
    """Several ablations, each of its own heads (None: of all), on one clean pass; as `sweep`."""
    check_ablations(heads, tokens, donors, mean_z, model)
    batch, rows = checked_sizes(model, tokens, donors=donors, batch=batch, chunk=chunk)
    positions = tokens.shape[1] - 1
    limit = BatchLimit(rows * positions, what="tokens replayed", device=model.device)
    asked = {ablation: _by_layer(model, wanted) for ablation, wanted in heads.items()}
    _check_selected(model, tokens, selected)
    if any_needs(heads, MEANS) and mean_z is None:
        mean_z = clean_pass(model, tokens, batch=batch).mean_z
    replay = Replay(model)
    costs = {
        ablation: sum(_cost(model, layer) * len(chosen) for layer, chosen in layers.items())
        for ablation, layers in asked.items()
    }
    parts: dict[str, list[SweepResult]] = {ablation: [] for ablation in heads}

    def prepare(recorded: Recorded) -> _SweepBatch:
        return _SweepBatch(model, recorded, mean_z, selected, limit)

    def measure(recorded: Recorded, report: Progress) -> None:
        swept: _SweepBatch = recorded.prepared
        for ablation, layers in asked.items():
            due = costs[ablation] / sum(costs.values())
            for share in swept.run(replay, workers, ablation, layers):
                report(share * due)
            parts[ablation].append(swept.result(layers))

    with side_by_side(replay) as workers:
        for_each_batch(
            replay,
            tokens,
            measure,
            donors=donors,
            batch=batch,
            prepare=prepare,
            progress=progress,
        )
    return {ablation: _join(found) for ablation, found in parts.items()}


def _check_selected(model: Decoder, tokens: Tensor, selected: Tensor | None) -> None:
    shape = [len(tokens), tokens.shape[1] - 1, model.n_layers, model.n_heads]
    if selected is not None and list(selected.shape) != shape:
        raise InputError(
            f"selected: shape {list(selected.shape)}; these prompts and this model have {shape}"
        )


def _by_layer(model: Decoder, heads: Iterable[tuple[int, int]] | None) -> dict[int, list[int]]:
    if heads is None:
        return {layer: list(range(model.n_heads)) for layer in range(model.n_layers)}
    chosen: dict[int, list[int]] = {}
    for layer, head in check_heads(sorted(set(heads)), model.n_layers, model.n_heads, name="heads"):
        chosen.setdefault(layer, []).append(head)
    if not chosen:
        raise InputError("heads: none given; leave it out for all heads")
    return chosen


def _cost(model: Decoder, layer: int) -> float:
    """Layers run per row: all later ones, and about half of the ablated one (its MLP)."""
    return model.n_layers - layer - 0.5


@dataclass
class _Rows:
    """Ablations of one layer's heads, replayed together: a (head, prompt) pair each.

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

    def halves(self) -> list[_Rows]:
        pairs = zip(self.head.tensor_split(2), self.prompt.tensor_split(2), strict=True)
        return [replace(self, head=head, prompt=prompt) for head, prompt in pairs]


class _SweepBatch:
    """One batch of prompts: its clean pass, and one ablation after the other of heads on it."""

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
        shape = (len(PER_HEAD), model.n_layers, model.n_heads, *self.clean.scale.shape)
        self.out = torch.empty(shape, dtype=self.clean.direct_effect.dtype, device=model.device)
        # Clean dot products with u that every replay is compared with: of the final residual, and of
        # all attention and MLP outputs from each layer on, [layer + 1, …].
        u, recording = self.clean.targets.directions, self.clean.recording
        self.clean_projection = dot(recording.residual[-1], u)
        self.clean_heads = _suffix_sums([dot(a, u) for a in recording.attention_out])
        self.clean_mlps = _suffix_sums([dot(m, u) for m in recording.mlp_out])

    def run(
        self, replay: Replay, workers: Workers, ablation: str, chosen: dict[int, list[int]]
    ) -> Iterator[float]:
        """Fill `out` anew; yields the share of the work done since the last one."""
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

    def _work(self, piece: _Rows) -> float:
        return piece.tokens * _cost(self.model, piece.layer)

    def _pieces(self, ablation: str, layer: int, heads: list[int]) -> list[_Rows]:
        """All rows of a layer, longest first, in even pieces that fit into memory."""
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
            pieces.append(_Rows(ablation, layer, head, prompt, length))
            first += count
        return pieces

    def _needed(self, layer: int) -> Int[Tensor, "prompt head"]:
        """Positions up to each head's last selected one, in a few lengths; 0 where there is none."""
        assert self.selected is not None
        selected = self.selected[:, :, layer]
        ends = torch.arange(1, selected.shape[1] + 1, device=selected.device)
        return cut_lengths((selected * ends[:, None]).amax(1), selected.shape[1])

    @torch.no_grad()
    def _ablate(self, replay: Replay, piece: _Rows) -> _Rows:
        """Measure some rows, in as many steps as memory asks for."""
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

    def _keep(self, rows: _Rows, measured: Float[Tensor, "quantity row position"]) -> None:
        if self.selected is not None:
            wanted = self.selected[rows.prompt, : rows.length, rows.layer, rows.head]
            measured = measured.masked_fill(~wanted, torch.nan)
        self.out[:, rows.layer, rows.head, rows.prompt, : rows.length] = measured

    def _delta_z(self, rows: _Rows) -> Float[Tensor, "row position d_head"]:
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

    def _measure(self, replay: Replay, rows: _Rows) -> Float[Tensor, "quantity row position"]:
        """Every quantity of PER_HEAD for some rows; a row whose z does not change is unchanged."""
        delta_z = self._delta_z(rows)
        scale = self.clean.scale[rows.prompt, : rows.length]
        effect = self.clean.direct_effect[rows.prompt, : rows.length, rows.layer, rows.head]
        zero = torch.zeros_like(effect)
        columns = {name: zero for name in PER_HEAD}
        columns |= {"ablated_direct_effect": effect, "ablated_scale": scale}
        measured = torch.stack([columns[name] for name in PER_HEAD])
        changed = delta_z.ne(0).flatten(1).any(1)
        if changed.any():
            some = replace(rows, head=rows.head[changed], prompt=rows.prompt[changed])
            changes = self._replay_rows(replay, some, delta_z[changed])
            measured[:, changed] = torch.stack([changes[name] for name in PER_HEAD])
        return measured

    def _replay_rows(
        self, replay: Replay, rows: _Rows, delta_z: Float[Tensor, "row position d_head"]
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
        delta_effect = dot(ablated.change, u) / scale
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
            "from_norm": projection * (1 / ablated_scale - 1 / scale),
            "ablated_scale": ablated_scale,
        }

    def result(self, chosen: dict[int, list[int]]) -> SweepResult:
        """A copy of what the last run measured, its sums checked."""
        out = self.out.permute(0, 3, 4, 1, 2)
        values = {name: stored(array.clone()) for name, array in zip(PER_HEAD, out, strict=True)}
        parts = values["from_heads"] + values["from_mlps"] + values["from_norm"]
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
            **values,
        )


def _suffix_sums(layers: list[Tensor]) -> list[Tensor]:
    """Sum over layers from each on; one more entry, zero, for after the last."""
    sums = [torch.zeros_like(layers[0])]
    for values in reversed(layers):
        sums.append(sums[-1] + values)
    return sums[::-1]


def _join(parts: list[SweepResult]) -> SweepResult:
    names = parts[0].arrays()
    arrays = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return SweepResult(
        **arrays,
        conservation_error=max(part.conservation_error for part in parts),
        decomposition_error=max(part.decomposition_error for part in parts),
    )
