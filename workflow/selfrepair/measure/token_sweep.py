"""Ablate every head and measure it at drawn tokens alone (docs/method.md sections 2 to 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..ablations import MEANS
from ..errors import InputError
from ..model.decoder import Decoder
from ..model.direct_effect import check_error
from ..model.memory import BatchLimit
from ..model.products import sum_dtype
from ..model.replay import Replay
from .ablation import any_needs, check_ablations
from .batches import Progress, Recorded, checked_sizes, for_each_batch, tensors_of
from .clean_pass import clean_pass
from .drawing import PLACES, DrawnTokens
from .repair_map import RepairMap
from .sweep_result import PER_HEAD
from .token_batch import TokenBatch, worst
from .workers import Workers, side_by_side

MEASURED = ("direct_effect", *PER_HEAD, "scale")


@dataclass
class TokenSweep:
    """What the ablation of each head did at its drawn tokens, in their order; [instance], on the CPU.

    prompt, position, layer, head: as drawn; layer and head say which head was ablated. In logits, float32
    (float64 for a float64 model): direct_effect, clean; ablated_direct_effect, of the ablated head, with
    the clean S; delta_logit; self_repair; from_heads, from_mlps, from_post_norms, from_norm, its terms.
    scale, ablated_scale: S and S', in units of the residual stream. The errors are the largest of all
    recorded prompts and of all instances, in logits; 0 where there are none.
    has_post_norms: whether the model normalises sublayers' outputs; else from_post_norms is exactly 0.
    repair_map: over the instances with `top`, if asked for.
    """

    prompt: Int[Tensor, " instance"]
    position: Int[Tensor, " instance"]
    layer: Int[Tensor, " instance"]
    head: Int[Tensor, " instance"]
    direct_effect: Float[Tensor, " instance"]
    ablated_direct_effect: Float[Tensor, " instance"]
    delta_logit: Float[Tensor, " instance"]
    self_repair: Float[Tensor, " instance"]
    from_heads: Float[Tensor, " instance"]
    from_mlps: Float[Tensor, " instance"]
    from_post_norms: Float[Tensor, " instance"]
    from_norm: Float[Tensor, " instance"]
    ablated_scale: Float[Tensor, " instance"]
    scale: Float[Tensor, " instance"]
    conservation_error: float = 0.0
    decomposition_error: float = 0.0
    has_post_norms: bool = False
    repair_map: RepairMap | None = None

    def arrays(self) -> dict[str, Tensor]:
        """The tensors to store by name: places as int32; from_post_norms only of a model that has post-norms;
        those of the map, if there is one."""
        arrays = tensors_of(self)
        arrays |= {name: arrays[name].int() for name in PLACES}
        if not self.has_post_norms:
            del arrays["from_post_norms"]
        return arrays | (self.repair_map.arrays() if self.repair_map else {})


def sweep_tokens(
    model: Decoder,
    tokens: Int[Tensor, "prompt length"],
    drawn: DrawnTokens,
    *,
    donors: Int[Tensor, "prompt length"] | None = None,
    ablation: str = "resample",
    mean_z: Float[Tensor, "layer head d_head"] | None = None,
    mapped: bool = False,
    batch: int | None = None,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> TokenSweep:
    """Ablate heads at all positions of a prompt and decompose the self-repair at the drawn tokens.

    A head is replayed in the prompts in which a token of its is drawn, up to the last one; a prompt
    without any is not even recorded.

    Args:
        model: from `load_model`.
        tokens: integers [prompt, position]; the last position is only a target.
        drawn: heads, each with one of its tokens; prompts counted as in `tokens`.
        donors: for resample ablation, the prompts whose activations are put in place.
        ablation: a name of `ablations.ABLATIONS`: "resample" (needs donors), "mean", "zero".
        mean_z: for mean ablation, the mean z over a larger sample; by default over `tokens`.
        mapped: also sum every component's change of direct effect over the instances with `top`.
        batch: prompts recorded at once; chunk: rows replayed at once (both by default sized to the
            device). Neither changes the result beyond rounding, and both are halved, with a warning,
            where they do not fit into memory.
        progress: called with the share of the work done since the last call.
    Raises:
        InputError: tokens, donors, ablation or drawn tokens that do not fit the model or each other; an
            instance twice; a model that does not fit into memory.
        ExactnessError: the conservation law, the decomposition or the map is off by more than the bound.
    """
    return sweep_tokens_each(
        model,
        tokens,
        {ablation: drawn},
        donors=donors,
        mean_z=mean_z,
        mapped=mapped,
        batch=batch,
        chunk=chunk,
        progress=progress,
    )[ablation]


def sweep_tokens_each(
    model: Decoder,
    tokens: Int[Tensor, "prompt length"],
    drawn: Mapping[str, DrawnTokens],
    *,
    donors: Int[Tensor, "prompt length"] | None = None,
    mean_z: Float[Tensor, "layer head d_head"] | None = None,
    mapped: bool = False,
    batch: int | None = None,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> dict[str, TokenSweep]:
    """Several ablations, each at its own drawn tokens, on one clean pass; as `sweep_tokens`."""
    check_ablations(drawn, tokens, donors, mean_z, model)
    batch, rows = checked_sizes(model, tokens, donors=donors, batch=batch, chunk=chunk)
    for chosen in drawn.values():
        check_drawn(model, tokens, chosen)
    if any_needs(drawn, MEANS) and mean_z is None:
        mean_z = clean_pass(model, tokens, batch=batch).mean_z
    limit = BatchLimit(rows * (tokens.shape[1] - 1), what="tokens replayed", device=model.device)
    found = {name: _empty(model, chosen, mapped) for name, chosen in drawn.items()}
    kept = torch.cat([chosen.prompt for chosen in drawn.values()]).unique()
    if not len(kept):
        if progress:
            progress(1.0)
        return found
    inside = {name: _renumbered(chosen, kept) for name, chosen in drawn.items()}
    replay = Replay(model)
    with side_by_side(replay) as workers:
        sweep = _Sweep(replay, workers, inside, found, mean_z, limit)
        error = for_each_batch(
            replay,
            tokens[kept],
            sweep.measure,
            donors=None if donors is None else donors[kept],
            batch=batch,
            prepare=sweep.prepare,
            progress=progress,
        )
    return {name: replace(each, conservation_error=error) for name, each in found.items()}


@dataclass
class _Sweep:
    """What the batches of a sweep share: what is drawn of the recorded prompts, and what is found."""

    replay: Replay
    workers: Workers
    drawn: Mapping[str, DrawnTokens]
    found: Mapping[str, TokenSweep]
    mean_z: Tensor | None
    limit: BatchLimit

    def prepare(self, recorded: Recorded) -> TokenBatch:
        rows = recorded.rows
        return TokenBatch(
            self.replay.decoder,
            recorded,
            self.mean_z,
            self.limit,
            drawn={name: drawn.in_prompts(rows) for name, drawn in self.drawn.items()},
            maps={n: each.repair_map for n, each in self.found.items() if each.repair_map},
        )

    def measure(self, recorded: Recorded, report: Progress) -> None:
        swept: TokenBatch = recorded.prepared
        for share in swept.run_pieces(self.replay, self.workers, swept.pieces()):
            report(share)
        for name, drawn in self.drawn.items():
            here = drawn.lie_in(recorded.rows)
            self._store(self.found[name], swept.columns(name), here)

    def _store(self, sweep: TokenSweep, columns: dict[str, Tensor], here: Tensor) -> None:
        """Put a batch's instances into their places, once its terms are known to add up."""
        dtype = self.replay.decoder.dtype_name
        for name, values in columns.items():
            getattr(sweep, name)[here] = values
        terms = columns["from_heads"] + columns["from_mlps"] + columns["from_norm"]
        differences = (columns["self_repair"] - terms - columns["from_post_norms"]).abs()
        if len(differences):
            sweep.decomposition_error = worst(sweep.decomposition_error, float(differences.max()))
        check_error("decomposition", sweep.decomposition_error, dtype)
        if sweep.repair_map:
            check_error("repair map", sweep.repair_map.map_error, dtype)


def check_drawn(model: Decoder, tokens: Tensor, drawn: DrawnTokens) -> None:
    """Refuse drawn tokens that do not fit the model or the prompts, and an instance twice (InputError)."""
    sizes = (len(tokens), tokens.shape[1] - 1, model.n_layers, model.n_heads)
    places = torch.stack([getattr(drawn, name).long() for name in PLACES], dim=1)
    for name, values, size in zip(PLACES, places.T, sizes, strict=True):
        outside = values[(values < 0) | (values >= size)]
        if len(outside):
            raise InputError(
                f"drawn tokens: {name} {int(outside[0])}; these prompts and this model have 0 to {size - 1}"
            )
    each, counts = places.unique(dim=0, return_counts=True)
    if len(each) < len(places):
        prompt, position, layer, head = each[counts.argmax()].tolist()
        raise InputError(
            f"drawn tokens: head {layer}.{head} at prompt {prompt}, position {position} "
            f"{int(counts.max())} times; give each once"
        )


def _renumbered(drawn: DrawnTokens, kept: Int[Tensor, " prompt"]) -> DrawnTokens:
    """The same instances with prompts counted among those kept."""
    return replace(drawn, prompt=torch.searchsorted(kept, drawn.prompt.contiguous()))


def _empty(model: Decoder, drawn: DrawnTokens, mapped: bool) -> TokenSweep:
    """A sweep of which nothing is measured yet."""
    dtype = sum_dtype(model.dtype)
    columns: dict[str, Any] = {name: getattr(drawn, name) for name in PLACES}
    columns |= {name: torch.full((len(drawn),), torch.nan, dtype=dtype) for name in MEASURED}
    return TokenSweep(
        **columns,
        has_post_norms=model.has_post_norms,
        repair_map=RepairMap.nothing(model) if mapped else None,
    )
