"""Means and ratios with their intervals, from a bootstrap over prompts (docs/method.md section 4).

Tokens of one prompt are not independent, so a resample draws whole prompts. Every mean or share is a
ratio of sums over prompts, so all resamples together are one matrix product. In every array of
estimates the first row is the value on the sample itself and the other rows are resamples.
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

    weights: from `prompt_weights`; selected: the tokens that a sum or mean is over.
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
    """Sum over instances (a head on one of its tokens) in each resample of their prompts."""
    sums = np.zeros((weights.shape[1], *values.shape[1:]))
    np.add.at(sums, prompt, values)
    return np.asarray(np.tensordot(weights, sums, axes=1))


def divide(
    numerator: Float[np.ndarray, "*shape"], denominator: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """Ratio of sums; NaN, never infinite, where the denominator is zero."""
    out = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator != 0)


def mean_over_heads(estimates: Estimates) -> Float[np.ndarray, " resample"]:
    """Mean over the heads that have a value in a resample; NaN where none has.

    A head has none in a resample that draws no prompt with a token of its own. The other policy,
    to leave out every resample that lacks a head, would let one head with tokens in few prompts decide
    for all: it drops half of the resamples of the default study's sweeps of two prompts, and 27 % of
    those of the mean overlap of neurons (E10), nearly all of them because of one head of four. The
    price of this policy is that resamples may average over different heads.
    """
    known = ~np.isnan(estimates)
    return divide(np.where(known, estimates, 0.0).sum(1), known.sum(1).astype(float))


def interval(
    estimates: Float[np.ndarray, "resample ..."],
) -> tuple[Float[np.ndarray, " ..."], Float[np.ndarray, " ..."], Float[np.ndarray, " ..."]]:
    """The value on the sample and both ends of the 95 % percentile interval, [...] each."""
    tail = (1 - LEVEL) / 2
    resamples = estimates[1:]
    missing = np.isnan(resamples).all(0)
    filled = np.where(missing, 0.0, resamples)
    low, high = np.nanquantile(filled, [tail, 1 - tail], axis=0)
    return (
        np.asarray(estimates[0]),
        np.where(missing, np.nan, low),
        np.where(missing, np.nan, high),
    )
