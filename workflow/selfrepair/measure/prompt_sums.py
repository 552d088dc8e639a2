"""Sums over each prompt's selected tokens: what tables of heads need of a sweep (docs/method.md section 4).

Means, shares, spreads and their bootstrap over prompts are ratios of such sums, and quantiles of per-token
ratios come from histograms, so that nothing that is stored grows with tokens x heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..vocabulary import ALL, EFFECTS, SHARED_EFFECTS, TOP, depth_groups
from .sweep_result import SweepResult

# Over a prompt's selected tokens: how many (tokens); how many of them have a direct effect that is not 0
# (with_effect), that is positive (positive), and of these how many have a logit that rises
# (over_corrected); the effects, in logits; shares of the direct effect clipped to 0..1, where it is not 0;
# squares of self-repair.
SUMS = (
    *("tokens", "with_effect", "positive", "over_corrected"),
    *EFFECTS,
    *(f"{name}_clipped" for name in SHARED_EFFECTS),
    "self_repair_squares",
)
# Names of what is stored beside the sums: histograms of ratios, and tokens selected for any head of a group.
HISTOGRAM, GROUP_TOKENS = "bins", "group_tokens"

# Bins of the ratio r to the direct effect are STEP wide in asinh(r / UNIT), and one is centred on 0. A
# bin's middle stands for its values: off by at most 1.5 % of sqrt(r^2 + UNIT^2), which is 0.0015 at 0 and
# 0.015 at 1, for |r| < LARGEST; what lies beyond is in the outermost bins.
BINS, STEP, UNIT = 511, 0.03, 0.1
LARGEST = UNIT * float(np.sinh(BINS / 2 * STEP))  # 106


def summed(
    result: SweepResult,
    top: Bool[Tensor, "prompt position layer head"],
    *,
    first_position: int = 0,
) -> dict[str, Tensor]:
    """What is stored of a sweep over all tokens, by name: "<selection>.<name>".

    Args:
        top: each head's top tokens; first_position: earlier tokens are not among all tokens
            (`text.prompts.first_position`).
    Returns:
        for each selection SUMS, float64 [prompt, layer, head]; HISTOGRAM, int32 [layer, head, effect,
        bin], of the prompts together (`histograms`); GROUP_TOKENS, int32 [prompt, group], tokens that are
        selected for any head of each of `vocabulary.depth_groups`. Sums and histograms of from_post_norms
        only of a model that has post-norms: else it is exactly 0.
    """
    every = torch.ones_like(top)
    every[:, :first_position] = False
    arrays = {name: getattr(result, name) for name in EFFECTS if name in result.arrays()}
    stored: dict[str, Tensor] = {}
    for selection, selected in ((TOP, top), (ALL, every)):
        sums, bins = [], []
        for layer in range(selected.shape[2]):
            here = {name: values[:, :, layer] for name, values in arrays.items()}
            sums.append(_layer_sums(here, selected[:, :, layer]))
            bins.append(histograms(here, selected[:, :, layer]))
        found = {name: torch.stack([each[name] for each in sums], 1) for name in sums[0]}
        found |= {HISTOGRAM: torch.stack(bins), GROUP_TOKENS: _group_tokens(selected)}
        stored |= {f"{selection}.{name}": values for name, values in found.items()}
    return stored


def joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What `summed` gives of consecutive prompts as one: histograms, which have no prompts, are added up."""
    return {
        name: torch.stack([part[name] for part in parts]).sum(0, dtype=values.dtype)
        if name.endswith(f".{HISTOGRAM}")
        else torch.cat([part[name] for part in parts])
        for name, values in parts[0].items()
    }


def instance_sums(
    rows: Mapping[str, Tensor], *, prompts: int, n_heads: int
) -> dict[str, Float[Tensor, "prompt head"]]:
    """The same SUMS of instances of one layer, a head on one of its tokens each.

    Args:
        rows: prompt, head and EFFECTS by name, [instance]; prompts: of the sample, n_heads: of the layer.
    """
    values = token_values(rows)
    cell = rows["prompt"].long() * n_heads + rows["head"].long()
    sums = torch.zeros(prompts * n_heads, len(values), dtype=torch.float64)
    sums.index_add_(0, cell, torch.stack([*values.values()], 1))
    return dict(zip(values, sums.reshape(prompts, n_heads, -1).unbind(2), strict=True))


def token_values(arrays: Mapping[str, Tensor]) -> dict[str, Float[Tensor, "*token"]]:
    """What each token adds to SUMS, float64; arrays: EFFECTS by name. Missing stays NaN."""
    effects = {name: arrays[name].double() for name in EFFECTS if name in arrays}
    direct = effects["direct_effect"]
    rises = (effects["delta_logit"] > 0).double().where(~effects["delta_logit"].isnan(), torch.nan)
    values = {
        "tokens": torch.ones_like(direct),
        "with_effect": (direct != 0).double(),
        "positive": (direct > 0).double(),
        "over_corrected": rises.where(direct > 0, 0.0),
        **effects,
    }
    for name in SHARED_EFFECTS:
        if name in effects:
            values[f"{name}_clipped"] = (effects[name] / direct).clamp(0, 1).where(direct != 0, 0.0)
    values["self_repair_squares"] = effects["self_repair"].square()
    return values


def histograms(
    arrays: Mapping[str, Tensor], selected: Bool[Tensor, "prompt position head"]
) -> Int[Tensor, "head effect bin"]:
    """How many selected tokens of each head have a ratio of effect and direct effect in each bin, int32.

    Effects are the SHARED_EFFECTS of arrays, in this order; tokens whose direct effect is 0, or whose
    effect is missing, have no ratio.
    """
    n_heads = selected.shape[-1]
    heads = torch.arange(n_heads).expand(selected.shape)
    direct, counts = arrays["direct_effect"].double(), []
    for name in SHARED_EFFECTS:
        if name in arrays:
            ratio = arrays[name].double() / direct
            known = selected & (direct != 0) & ~ratio.isnan()
            cell = heads[known] * BINS + _bin_of(ratio[known])
            counts.append(torch.bincount(cell, minlength=n_heads * BINS).reshape(n_heads, BINS))
    return torch.stack(counts, 1).int()


def histogram_quantiles(
    counts: Int[np.ndarray, "head bin"], levels: Sequence[float]
) -> Float[np.ndarray, "level head"]:
    """Quantiles of values of which only the bin is known; NaN for a head without any.

    As numpy's: between the two values in order that a level lies between; both are known to half a
    bin, and so is the quantile.
    """
    middles = UNIT * np.sinh((np.arange(BINS) - BINS // 2) * STEP)
    below = counts.cumsum(1)
    found = np.full((len(levels), len(counts)), np.nan)
    for head, cumulated in enumerate(below):
        if cumulated[-1]:
            place = np.asarray(levels) * (cumulated[-1] - 1)
            lower = np.floor(place)
            ends = [
                middles[np.searchsorted(cumulated, at, side="right")]
                for at in (lower, np.ceil(place))
            ]
            found[:, head] = ends[0] + (place - lower) * (ends[1] - ends[0])
    return found


def _bin_of(ratio: Float[Tensor, " token"]) -> Int[Tensor, " token"]:
    place = torch.asinh(ratio / UNIT) / STEP + BINS / 2
    return place.floor().clamp(0, BINS - 1).long()


def _layer_sums(
    arrays: Mapping[str, Tensor], selected: Bool[Tensor, "prompt position head"]
) -> dict[str, Float[Tensor, "prompt head"]]:
    return {
        name: values.where(selected, 0.0).sum(1) for name, values in token_values(arrays).items()
    }


def _group_tokens(
    selected: Bool[Tensor, "prompt position layer head"],
) -> Int[Tensor, "prompt group"]:
    any_head = selected.any(3)
    groups = depth_groups(selected.shape[2]).values()
    return torch.stack([any_head[:, :, layers].any(2).sum(1) for layers in groups], 1).int()
