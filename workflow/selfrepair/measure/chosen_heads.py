"""What the experiments on single heads keep of a sweep: a few heads, token by token (E3, E4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..ablations import ABLATIONS, RESAMPLE
from ..vocabulary import TOKEN_EFFECTS, Head
from .sweep_result import SweepResult


def heads_by_ablation(
    heads: Sequence[Head], last_layer_heads: Sequence[Head]
) -> dict[str, list[Head]]:
    """Which heads each ablation removes: all by resampling (E3), those of the last layer by every
    ablation (E4)."""
    last = list(last_layer_heads)
    return {name: [*heads, *last] if name == RESAMPLE.name else last for name in ABLATIONS}


def chosen_arrays(
    results: Mapping[str, SweepResult], heads: Sequence[Head], last_layer_heads: Sequence[Head]
) -> dict[str, Tensor]:
    """What the experiments on single tokens keep of sweeps of a few heads, [prompt, position, head].

    `tokens.*`: TOKEN_EFFECTS of `heads` under resample ablation; `last.direct_effect` and
    `last.<ablation>`: clean direct effect and S / S' of last_layer_heads. S / S' is above 1 if the
    final norm magnifies what the ablation leaves.
    """

    def columns(values: Tensor, chosen: Sequence[Head]) -> Tensor:
        return torch.stack([values[..., layer, head] for layer, head in chosen], -1)

    resample = results[RESAMPLE.name]
    arrays = {f"tokens.{name}": columns(getattr(resample, name), heads) for name in TOKEN_EFFECTS}
    arrays["last.direct_effect"] = columns(resample.direct_effect, last_layer_heads)
    for ablation, result in results.items():
        after = columns(result.ablated_scale, last_layer_heads)
        arrays[f"last.{ablation}"] = result.scale[..., None] / after
    return arrays
