"""Intervals from sums over prompts: against the sums' definition, tables of t, and their coverage."""

from __future__ import annotations

import numpy as np
import pytest

from selfrepair.tables.intervals import ratio_intervals, standard_errors


def test_quantiles_of_students_t_are_those_of_printed_tables() -> None:
    degrees = np.array([[1, 2, 5], [10, 22, 100]])
    want = [[12.7062, 4.3027, 2.5706], [2.2281, 2.0739, 1.9840]]
    np.testing.assert_allclose(standard_errors(degrees + 1), want, atol=5e-5)
    assert np.isnan(standard_errors(np.array([0, 1]))).all()


def sums_of(values: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """values: s_p [prompt, ...]; counts: n_p, of the same shape."""
    squares = {"squares": (values**2).sum(0), "products": (values * counts).sum(0)}
    of_tokens = {"tokens": counts.sum(0), "tokens_squared": (counts**2).sum(0)}
    return {"sums": values.sum(0), **squares, **of_tokens, "prompts": (counts > 0).sum(0)}


def intervals(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, ...]:
    return ratio_intervals(**sums_of(values, counts.astype(float)))


def test_an_interval_is_that_of_the_sum_over_prompts_written_out() -> None:
    draw = np.random.default_rng(0)
    counts = draw.integers(0, 4, 40).astype(float)
    values = draw.normal(0.3, 1, 40) * counts
    (mean,), (low,), (high,) = intervals(values[:, None], counts[:, None])
    want = sum(values) / sum(counts)
    number = sum(count > 0 for count in counts)
    spread = sum((s - want * n) ** 2 for s, n in zip(values, counts, strict=True))
    error = np.sqrt(spread / sum(counts) ** 2 * number / (number - 1))
    half = standard_errors(np.array([number]))[0] * error
    assert mean == pytest.approx(want, abs=1e-14)
    assert (low, high) == pytest.approx((want - half, want + half), abs=1e-14)


def test_one_token_a_prompt_gives_the_textbook_interval_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(size=(12, 1))
    mean, low, _ = intervals(values, np.ones((12, 1)))
    error = values.std(ddof=1) / np.sqrt(12)
    assert mean - low == pytest.approx(2.200985 * error, rel=1e-6)


def test_too_little_to_say_is_nan() -> None:
    counts = np.array([[0.0, 3.0, 2.0], [0.0, 0.0, 2.0]])
    mean, low, high = intervals(counts * 0.7, counts)
    np.testing.assert_allclose(mean, [np.nan, 0.7, 0.7])
    # Two prompts of the same mean: no spread, whatever rounding leaves of it.
    for bound in (low, high):
        np.testing.assert_allclose(bound, [np.nan, np.nan, 0.7], atol=1e-7)


@pytest.mark.parametrize("prompts", [4, 23])
def test_intervals_cover_the_mean_of_correlated_tokens(prompts: int) -> None:
    """Tokens share most of their noise with their prompt; a prompt has 1 to 3 of them."""
    draw, trials = np.random.default_rng(2), 4000
    counts = draw.integers(1, 4, (prompts, trials))
    shared = draw.normal(0.5, 1, (prompts, trials))
    values = shared * counts + draw.normal(0, 0.5, (prompts, trials)) * np.sqrt(counts)
    _, low, high = intervals(values, counts)
    coverage = ((low <= 0.5) & (high >= 0.5)).mean()
    # Measured: 0.943 with 4 prompts, 0.942 with 23; 4,000 trials are good to 0.003.
    assert 0.93 < coverage < 0.965
