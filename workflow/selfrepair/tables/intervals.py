"""Intervals of many means at once, without resamples: each from six sums (docs/method.md section 5)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from .bootstrap import divide, student_t


def ratio_intervals(
    sums: Float[np.ndarray, "*shape"],
    squares: Float[np.ndarray, "*shape"],
    products: Float[np.ndarray, "*shape"],
    *,
    tokens: Float[np.ndarray, "*shape"],
    tokens_squared: Float[np.ndarray, "*shape"],
    prompts: Int[np.ndarray, "*shape"],
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """The mean over tokens, and both ends of its 95 % interval over prompts.

    Tokens of one prompt are not independent, so the mean m is a ratio of sums over prompts p, of the sum
    s_p of its tokens' values and their number n_p. Its variance is linearised (the delta method):
    sum_p (s_p - m n_p)^2 / (sum_p n_p)^2, times P / (P - 1) for P prompts, with Student's t of P - 1
    degrees. The square is multiplied out, so that no sum over prompts has to know m.

    Args:
        sums, squares, products: sum over prompts of s_p, s_p^2 and s_p n_p.
        tokens, tokens_squared, prompts: sum of n_p and n_p^2, and how many prompts have tokens.
    Returns:
        mean: NaN without tokens; low, high: NaN with fewer than two prompts.
    """
    mean = divide(sums, tokens)
    spread = squares - 2 * mean * products + mean**2 * tokens_squared
    # Rounding may leave a small negative number where every prompt has the same mean.
    correction = divide(prompts.astype(float), prompts - 1.0)
    variance = divide(np.clip(spread, 0, None), tokens**2) * correction
    half = standard_errors(prompts) * np.sqrt(variance)
    return mean, mean - half, mean + half


def standard_errors(prompts: Int[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """How many standard errors a 95 % interval reaches to either side, from so many prompts: Student's t
    with one degree of freedom fewer; NaN below two prompts."""
    unique, at = np.unique(prompts, return_inverse=True)
    values = [student_t(int(number) - 1) if number > 1 else np.nan for number in unique]
    return np.asarray(values)[at].reshape(prompts.shape)
