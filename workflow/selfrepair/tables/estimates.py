"""What a table of heads says of self-repair: means, shares and spread (docs/method.md section 4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float, Int

from ..vocabulary import EFFECTS, SHARED_EFFECTS, bounded
from .bootstrap import Estimates, divide, interval


def resampled_means(
    sums: Mapping[str, Float[np.ndarray, "prompt head"]],
    weights: Float[np.ndarray, "resample prompt"],
) -> dict[str, Estimates]:
    """Per head and resample all that can be averaged over heads afterwards.

    Args:
        sums: `measure.prompt_sums.SUMS` by name; weights: of `bootstrap.prompt_weights`.
    Returns:
        the mean of every effect in logits; `<effect>_share_clipped`, the paper's share: the mean over
        tokens of effect / direct effect, clipped to 0..1; `over_corrected_share`, of tokens with a
        positive direct effect those whose logit rises; `self_repair_variance` over tokens, without the
        bias of a small sample (NaN for one token).
    """
    total = {name: weights @ values for name, values in sums.items()}
    means = {name: divide(total[name], total["tokens"]) for name in EFFECTS}
    for name in SHARED_EFFECTS:
        means[f"{name}_share_clipped"] = divide(total[f"{name}_clipped"], total["with_effect"])
    means["over_corrected_share"] = divide(total["over_corrected"], total["positive"])
    tokens = total["tokens"]
    squares = divide(total["self_repair_squares"], tokens)
    variance = np.clip(squares - np.square(means["self_repair"]), 0, None)
    # That of a few drawn tokens about their own mean is too small by (n - 1) / n.
    means["self_repair_variance"] = divide(variance * tokens, tokens - 1)
    return means


def with_intervals(
    means: Mapping[str, Estimates], *, prompts: Int[np.ndarray, " head"]
) -> dict[str, Float[np.ndarray, " head"]]:
    """The columns of a table: each mean, and each ratio of means, with its 95 % interval.

    means: of `resampled_means`, or averages of those over heads, one column for each group of heads;
    prompts: in how many prompts the tokens of each column lie.
    """
    columns: dict[str, Float[np.ndarray, " head"]] = {}
    shown = [(name, values) for name, values in means.items() if name != "self_repair_variance"]
    for name, estimates in [*shown, *_ratios(means)]:
        columns |= dict(zip(bounded(name), interval(estimates, prompts=prompts), strict=True))
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
