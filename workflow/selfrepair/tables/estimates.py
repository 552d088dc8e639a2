"""What a table of heads says of self-repair: means, shares and spread (docs/method.md section 4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float

from ..vocabulary import SHARED_EFFECTS, bounded
from .bootstrap import Estimates, PromptSums, divide, interval

# EFFECTS of one layer by name, in logits.
Arrays = Mapping[str, Float[np.ndarray, "prompt position head"]]


def resampled_means(arrays: Arrays, sums: PromptSums) -> dict[str, Estimates]:
    """Per head and resample all that can be averaged over heads afterwards.

    Returns:
        the mean of every effect in logits; `<effect>_share_clipped`, the paper's share: the mean over
        tokens of effect / direct effect, clipped to 0..1; `over_corrected_share`, of tokens with a
        positive direct effect those whose logit rises; `self_repair_variance` over tokens.
    """
    means = {name: sums.mean(values) for name, values in arrays.items()}
    for name in SHARED_EFFECTS:
        clipped = np.clip(divide(arrays[name], arrays["direct_effect"]), 0, 1)
        known = PromptSums(sums.weights, sums.selected & ~np.isnan(clipped))
        means[f"{name}_share_clipped"] = known.mean(np.nan_to_num(clipped))
    rises = np.where(np.isnan(arrays["delta_logit"]), np.nan, arrays["delta_logit"] > 0)
    positive = PromptSums(sums.weights, sums.selected & (arrays["direct_effect"] > 0))
    means["over_corrected_share"] = positive.mean(rises)
    squares = sums.mean(np.square(arrays["self_repair"]))
    means["self_repair_variance"] = np.clip(squares - np.square(means["self_repair"]), 0, None)
    return means


def with_intervals(means: Mapping[str, Estimates]) -> dict[str, Float[np.ndarray, " head"]]:
    """The columns of a table: each mean, and each ratio of means, with its 95 % interval.

    means: of `resampled_means`, or averages of those over heads, one column for each group of heads.
    """
    columns: dict[str, Float[np.ndarray, " head"]] = {}
    shown = [(name, values) for name, values in means.items() if name != "self_repair_variance"]
    for name, estimates in [*shown, *_ratios(means)]:
        columns |= dict(zip(bounded(name), interval(estimates), strict=True))
    return columns


def _ratios(means: Mapping[str, Estimates]) -> Iterator[tuple[str, Estimates]]:
    """Shares of the direct effect and of what the ablation really removed; spread over tokens."""
    for name in SHARED_EFFECTS:
        yield f"{name}_share", divide(means[name], means["direct_effect"])
    removed = means["direct_effect"] - means["ablated_direct_effect"]
    yield "restored_share", divide(means["self_repair"], removed)
    deviation = np.sqrt(means["self_repair_variance"])
    yield "self_repair_sd", deviation
    yield "self_repair_noise", divide(deviation, np.abs(means["self_repair"]))
