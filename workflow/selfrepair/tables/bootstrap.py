"""Means, shares and their intervals, per head, from a bootstrap over prompts (method section 4).

Tokens of one prompt are not independent, so a resample draws whole prompts. Everything is a ratio of
sums over prompts, which makes a resample one matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from ..errors import InputError

LEVEL = 0.95

Estimates = Float[np.ndarray, "resample head"]


def prompt_weights(
    prompts: int, resamples: int, *, seed: int
) -> Float[np.ndarray, "resample prompt"]:
    """How often each prompt is drawn in each bootstrap resample; the first row is the sample itself.

    One prompt has no spread to resample: its resamples are NaN, and so is every interval.
    Raises:
        InputError: no prompts to draw from.
    """
    if prompts < 1:
        raise InputError("bootstrap: no prompts to resample")
    drawn = np.random.default_rng(seed).multinomial(
        prompts, np.full(prompts, 1 / prompts), resamples
    )
    weights = np.vstack([np.ones(prompts), drawn]).astype(float)
    if prompts == 1:
        weights[1:] = np.nan
    return weights


@dataclass
class PromptSums:
    """Sums over the selected tokens of each prompt.

    weights: [resample, prompt], from `prompt_weights`; selected: [prompt, position, head].
    """

    weights: Float[np.ndarray, "resample prompt"]
    selected: Bool[np.ndarray, "prompt position head"]

    def __post_init__(self) -> None:
        self.counts = self.weights @ self.selected.sum(1).astype(float)

    def total(self, values: Float[np.ndarray, "prompt position head"]) -> Estimates:
        """Sum of values over selected tokens in each resample."""
        per_prompt = np.where(self.selected, values, 0.0).sum(1, dtype=np.float64)
        return self.weights @ per_prompt

    def mean(self, values: Float[np.ndarray, "prompt position head"]) -> Estimates:
        """Mean of values over selected tokens in each resample; NaN where it drew none."""
        return divide(self.total(values), self.counts)


def resampled_totals(
    values: Float[np.ndarray, "instance ..."],
    prompt: Int[np.ndarray, " instance"],
    weights: Float[np.ndarray, "resample prompt"],
) -> Float[np.ndarray, "resample ..."]:
    """Sum over instances in each resample of the prompts they come from."""
    sums = np.zeros((weights.shape[1], *values.shape[1:]))
    np.add.at(sums, prompt, values)
    return np.asarray(np.tensordot(weights, sums, axes=1))


def divide(
    numerator: Float[np.ndarray, "*shape"], denominator: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """Ratio of sums; NaN, never infinite, where the denominator is zero."""
    out = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator != 0)


def interval(
    estimates: Estimates,
) -> tuple[Float[np.ndarray, " head"], Float[np.ndarray, " head"], Float[np.ndarray, " head"]]:
    """Value on the sample (first row) and the 95 % percentile interval of the resamples."""
    tail = (1 - LEVEL) / 2
    resamples = estimates[1:]
    missing = np.isnan(resamples).all(0)
    filled = np.where(missing, 0.0, resamples)
    low, high = np.nanquantile(filled, [tail, 1 - tail], axis=0)
    return estimates[0], np.where(missing, np.nan, low), np.where(missing, np.nan, high)
