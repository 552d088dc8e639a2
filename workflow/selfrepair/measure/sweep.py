"""Ablate every head and measure what the rest of the model makes up for (docs/method.md sections 2, 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..ablations import MEANS
from ..errors import InputError
from ..model.decoder import Decoder
from ..model.memory import BatchLimit
from ..model.replay import Replay
from .ablation import any_needs, check_ablations
from .ablation_batch import cost
from .batches import Progress, Recorded, checked_sizes, for_each_batch
from .clean_pass import clean_pass
from .selection import check_heads
from .sweep_batch import SweepBatch
from .sweep_result import SweepResult, joined
from .workers import side_by_side


def sweep(
    model: Decoder,
    tokens: Int[Tensor, "prompt length"],
    *,
    donors: Int[Tensor, "prompt length"] | None = None,
    ablation: str = "resample",
    mean_z: Float[Tensor, "layer head d_head"] | None = None,
    heads: Iterable[tuple[int, int]] | None = None,
    selected: Bool[Tensor, "prompt position layer head"] | None = None,
    batch: int | None = None,
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
        batch: prompts recorded at once; chunk: rows replayed at once (both by default sized to the
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
    batch: int | None = None,
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
        ablation: sum(cost(model, layer) * len(chosen) for layer, chosen in layers.items())
        for ablation, layers in asked.items()
    }
    parts: dict[str, list[SweepResult]] = {ablation: [] for ablation in heads}

    def prepare(recorded: Recorded) -> SweepBatch:
        return SweepBatch(model, recorded, mean_z, selected, limit)

    def measure(recorded: Recorded, report: Progress) -> None:
        swept: SweepBatch = recorded.prepared
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
            workers=workers,
            progress=progress,
        )
    return {ablation: joined(found) for ablation, found in parts.items()}


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
