"""What a sweep returns (docs/method.md sections 1 to 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from .batches import tensors_of


@dataclass
class SweepResult:
    """What the ablation of each head did; arrays on the CPU, float32 (float64 for a float64 model).

    [prompt, position, layer, head], where layer and head say which head was ablated, in logits:
    direct_effect, clean; ablated_direct_effect, of the ablated head, with the clean S; delta_logit;
    self_repair; from_heads, from_mlps, from_norm, its terms. ablated_scale is S', in units of the residual
    stream. NaN where a head or token was not asked for.
    [prompt, position]: scale, the clean S. The errors are the largest of all tokens, in logits.
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


def joined(parts: Sequence[SweepResult]) -> SweepResult:
    """The results of consecutive batches of prompts as one."""
    names = parts[0].arrays()
    arrays = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return SweepResult(
        **arrays,
        conservation_error=max(part.conservation_error for part in parts),
        decomposition_error=max(part.decomposition_error for part in parts),
    )
