"""What a cheaper number format costs: the same sweep in it and in float32, compared."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ..model.decoder import Decoder
from ..vocabulary import Head
from .sweep_result import PER_HEAD, SweepResult

# Enough to see every depth, few enough to take minutes on any model.
PROMPTS, LAYERS, HEADS = 2, 4, 8


def probed_heads(model: Decoder) -> list[Head]:
    """Some heads of some layers, evenly spaced, the first and last layer among them."""
    layers, heads = (
        sorted({int(at) for at in torch.linspace(0, count - 1, min(count, wanted)).round()})
        for count, wanted in ((model.n_layers, LAYERS), (model.n_heads, HEADS))
    )
    return [(layer, head) for layer in layers for head in heads]


def differences(
    own: SweepResult, reference: SweepResult, heads: Iterable[Head], *, first_position: int = 0
) -> dict[str, dict[str, float]]:
    """By quantity, over the tokens of some heads, in its units (logits; `ablated_scale` in those of
    the residual stream): largest and mean absolute difference, and the reference's mean absolute value.

    first_position: tokens before it are never selected, so they do not count here either.
    """
    layer, head = torch.tensor(list(heads)).T
    found = {}
    for name in ("direct_effect", *PER_HEAD):
        values, exact = (
            getattr(r, name)[:, first_position:, layer, head].double() for r in (own, reference)
        )
        apart = (values - exact).abs()
        found[name] = {
            "largest": float(apart.max()),
            "mean": float(apart.mean()),
            "reference_mean": float(exact.abs().mean()),
        }
    return found
