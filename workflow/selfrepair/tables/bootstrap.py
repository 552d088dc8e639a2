"""Means and ratios with their intervals, from a bootstrap over prompts (docs/method.md section 4).

Tokens of one prompt are not independent, so a resample draws whole prompts. Every mean or share is a
ratio of sums over prompts, so all resamples together are one matrix product. In every array of
estimates the first row is the value on the sample itself and the other rows are resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist
from typing import Any

import mpmath
import numpy as np
from jaxtyping import Float, Int

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
    *,
    prompts: int | Int[np.ndarray, " ..."] | None = None,
) -> tuple[Float[np.ndarray, " ..."], Float[np.ndarray, " ..."], Float[np.ndarray, " ..."]]:
    """The value on the sample and both ends of its 95 % interval, [...] each.

    It covers both that prompts were drawn from text and that tokens were drawn within prompts: a prompt
    is drawn with the tokens that were measured of it, whose differences are part of the spread of its sum.
    That a head's tokens are its top ones of the sample is taken as given.

    Args:
        prompts: in how many different prompts the tokens of each value lie: the ends are percentiles
            expanded for so few (`tail`); NaN for fewer than two. None: the plain 2.5 and 97.5 %
            percentiles of the resamples.
    """
    resamples = estimates[1:]
    shape = resamples.shape[1:]
    tails = np.full(shape, (1 - LEVEL) / 2)
    if prompts is not None:
        counts = np.broadcast_to(np.asarray(prompts), shape)
        for count in np.unique(counts):
            tails[counts == count] = tail(int(count))
    tails[np.isnan(resamples).all(0)] = np.nan
    low, high = np.full(shape, np.nan), np.full(shape, np.nan)
    for level in np.unique(tails[~np.isnan(tails)]):
        here = tails == level
        low[here], high[here] = _quantiles(resamples[:, here], [level, 1 - level])
    return np.asarray(estimates[0]), low, high


def _quantiles(
    values: Float[np.ndarray, "resample number"], levels: Sequence[float]
) -> Float[np.ndarray, "level number"]:
    """Quantiles of the resamples that have a value; numpy is much faster where none lacks one."""
    some = np.isnan(values).any(0)
    found = np.empty((len(levels), values.shape[1]))
    found[:, ~some] = np.quantile(values[:, ~some], levels, axis=0)
    found[:, some] = np.nanquantile(values[:, some], levels, axis=0)
    return found


@cache
def tail(prompts: int) -> float:
    """The share of resamples below the lower end of an interval that rests on so many prompts.

    The expanded percentile interval of Hesterberg 2015 (arXiv 1411.5279): resamples of n prompts spread
    by sqrt((n - 1) / n) too little, and their percentiles are those of a normal distribution where
    Student's t with n - 1 degrees of freedom is due. So not 2.5 %, but the normal distribution below
    -sqrt(n / (n - 1)) t. NaN for fewer than two prompts, which have no spread.
    """
    if prompts < 2:
        return float("nan")
    t = student_t(prompts - 1)
    return NormalDist().cdf(-math.sqrt(prompts / (prompts - 1)) * t)


@cache
def student_t(freedom: int) -> float:
    """The value that Student's t with so many degrees of freedom exceeds, up or down, in 1 - LEVEL."""

    def beyond(t: Any) -> Any:
        part = freedom / (freedom + t * t)
        return mpmath.betainc(freedom / 2, 0.5, 0, part, regularized=True) - (1 - LEVEL)

    normal = NormalDist().inv_cdf((1 + LEVEL) / 2)
    # Between the quantiles of the normal distribution and of one degree of freedom.
    return float(mpmath.findroot(beyond, (normal, 13), solver="anderson"))
