"""What a sweep returns (docs/method.md sections 1 to 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..model.decoder import Decoder
from ..vocabulary import EFFECTS
from .batches import tensors_of


@dataclass
class SweepResult:
    """What the ablation of each head did; arrays on the CPU, float32 (float64 for a float64 model).

    [prompt, position, layer, head], where layer and head say which head was ablated, in logits:
    direct_effect, clean; ablated_direct_effect, of the ablated head, with the clean S; delta_logit;
    self_repair; from_heads, from_mlps, from_post_norms, from_norm, its terms. ablated_scale is S', in
    units of the residual stream. NaN where a head or token was not asked for.
    [prompt, position]: scale, the clean S. The errors are the largest of all tokens, in logits.
    has_post_norms: whether the model normalises sublayers' outputs; else from_post_norms is exactly 0.
    """

    direct_effect: Float[Tensor, "prompt position layer head"]
    ablated_direct_effect: Float[Tensor, "prompt position layer head"]
    delta_logit: Float[Tensor, "prompt position layer head"]
    self_repair: Float[Tensor, "prompt position layer head"]
    from_heads: Float[Tensor, "prompt position layer head"]
    from_mlps: Float[Tensor, "prompt position layer head"]
    from_post_norms: Float[Tensor, "prompt position layer head"]
    from_norm: Float[Tensor, "prompt position layer head"]
    ablated_scale: Float[Tensor, "prompt position layer head"]
    scale: Float[Tensor, "prompt position"]
    conservation_error: float
    decomposition_error: float
    has_post_norms: bool = False

    def arrays(self) -> dict[str, Tensor]:
        """The tensors to store by name: from_post_norms only of a model that has post-norms."""
        arrays = tensors_of(self)
        if not self.has_post_norms:
            del arrays["from_post_norms"]
        return arrays


# Measured per (head, prompt) row; ablated_scale is the only one that is no number of logits.
PER_HEAD = (*(name for name in EFFECTS if name != "direct_effect"), "ablated_scale")


def measured_of(model: Decoder) -> tuple[str, ...]:
    """What a sweep measures per row: PER_HEAD, from_post_norms only if the model has post-norms."""
    return tuple(n for n in PER_HEAD if n != "from_post_norms" or model.has_post_norms)


def zeros_where_measured(
    values: Float[Tensor, "prompt position layer head"],
) -> Float[Tensor, "prompt position layer head"]:
    """Exactly 0 where a quantity was measured, NaN where it was not."""
    return torch.zeros_like(values).masked_fill_(values.isnan(), torch.nan)


def joined(parts: Sequence[SweepResult]) -> SweepResult:
    """The results of consecutive batches of prompts as one."""
    names = tensors_of(parts[0])
    arrays = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return SweepResult(
        **arrays,
        conservation_error=max(part.conservation_error for part in parts),
        decomposition_error=max(part.decomposition_error for part in parts),
        has_post_norms=parts[0].has_post_norms,
    )
