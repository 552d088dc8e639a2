"""Bootstrap over prompts: sums against plain loops, intervals that cover, heads without a value."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from selfrepair.errors import InputError
from selfrepair.tables import instances
from selfrepair.tables.bootstrap import (
    divide,
    interval,
    mean_over_heads,
    prompt_weights,
    resampled_totals,
    tail,
)


def test_bootstrap_weights_start_with_the_sample_and_are_fixed_by_the_seed():
    weights = prompt_weights(7, 50, seed=1)
    assert (weights[0] == 1).all()
    assert (weights.sum(1) == 7).all()
    assert np.array_equal(weights, prompt_weights(7, 50, seed=1))
    assert not np.array_equal(weights, prompt_weights(7, 50, seed=2))


def test_vectorised_resamples_equal_a_loop_over_prompts():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(5, 9, 2))
    selected = generator.random((5, 9, 2)) < 0.6
    weights = prompt_weights(5, 20, seed=0)
    prompt, _, of_head = selected.nonzero()
    means = np.stack(
        [
            instances.resampled_means(
                values[selected][of_head == head], prompt[of_head == head], weights
            )
            for head in range(2)
        ],
        axis=1,
    )
    for row, weight in zip(means, weights, strict=True):
        drawn = np.repeat(np.arange(5), weight.astype(int))
        for head in range(2):
            picked = np.concatenate([values[p, selected[p, :, head], head] for p in drawn])
            assert row[head] == pytest.approx(picked.mean() if len(picked) else np.nan, nan_ok=True)


def resampled_means(values, selected, resamples):
    """Means of studies [prompt, token, study] over their selected tokens in each resample of prompts."""
    weights = prompt_weights(len(values), resamples, seed=0)
    return divide(weights @ np.where(selected, values, 0).sum(1), weights @ selected.sum(1))


def test_intervals_cover_the_truth_when_tokens_of_a_prompt_are_correlated():
    """95 % nominal. Treating tokens as independent covers about a third of the time here, prompts as
    the unit 95 % (measured)."""
    generator = np.random.default_rng(0)
    studies, prompts, tokens = 300, 40, 20
    shared = generator.normal(size=(prompts, 1, studies))
    values = 1.0 + shared + 0.5 * generator.normal(size=(prompts, tokens, studies))
    by_prompt = resampled_means(values, np.ones(values.shape, bool), 1000)
    _, low, high = interval(by_prompt, prompts=prompts)
    covered = ((low <= 1.0) & (high >= 1.0)).mean()
    assert 0.92 <= covered <= 0.98
    flat = values.reshape(-1, 1, studies)
    _, low, high = interval(resampled_means(flat, np.ones(flat.shape, bool), 300))
    assert ((low <= 1.0) & (high >= 1.0)).mean() < 0.6


def test_division_by_zero_is_missing():
    ratio = divide(np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]]))
    assert np.isnan(ratio[0, 0])
    assert ratio[0, 1] == 0.5


def test_no_prompts_are_refused():
    with pytest.raises(InputError, match="no prompts to resample"):
        prompt_weights(0, 10, seed=0)


def test_one_prompt_has_no_interval():
    value, low, high = interval(prompt_weights(1, 10, seed=0))
    assert value == [1.0]
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_intervals_are_taken_number_by_number():
    estimates = np.random.default_rng(0).normal(size=(101, 2, 3))
    estimates[1:, 0, 1] = np.nan
    value, low, high = interval(estimates)
    assert np.array_equal(value, estimates[0])
    assert np.isnan([low[0, 1], high[0, 1]]).all()
    expected = np.quantile(estimates[1:, 1, 2], [0.025, 0.975])
    assert [low[1, 2], high[1, 2]] == pytest.approx(list(expected))
    single = interval(estimates[:, 1, 2])
    assert single == (value[1, 2], low[1, 2], high[1, 2])


def test_percentiles_are_expanded_by_the_number_of_prompts():
    estimates = np.random.default_rng(0).normal(size=(2001, 3))
    estimates[5:9, 2] = np.nan  # resamples without a token
    value, low, high = interval(estimates, prompts=np.array([1, 5, 20]))
    assert np.array_equal(value, estimates[0])
    assert np.isnan([low[0], high[0]]).all()
    for index, prompts in ((1, 5), (2, 20)):
        ends = np.nanquantile(estimates[1:, index], [tail(prompts), 1 - tail(prompts)])
        assert [low[index], high[index]] == pytest.approx(list(ends), rel=1e-12)
        alone = interval(estimates[:, index], prompts=prompts)
        assert alone == (value[index], low[index], high[index])


def test_the_expanded_level_is_that_of_students_t():
    # Two-sided 95 % quantiles of Student's t from tables: 12.706, 2.776, 2.262, 2.001.
    for prompts, t in ((2, 12.706), (5, 2.776), (10, 2.262), (60, 2.001)):
        expected = NormalDist().cdf(-t * math.sqrt(prompts / (prompts - 1)))
        assert tail(prompts) == pytest.approx(expected, rel=5e-3)
    assert tail(100_000) == pytest.approx(0.025, rel=1e-3)
    assert math.isnan(tail(1))
    assert math.isnan(tail(0))


# Prompts, drawn tokens, and what plain percentiles and expanded ones cover in 4,000 studies (measured).
COVERAGE = [(5, 24, 0.82, 0.90), (10, 24, 0.88, 0.94), (20, 12, 0.90, 0.95), (60, 24, 0.93, 0.95)]


@pytest.mark.parametrize(("prompts", "drawn", "plain", "expanded"), COVERAGE)
def test_intervals_cover_the_truth_when_tokens_are_drawn(prompts, drawn, plain, expanded):
    """95 % nominal: prompts with few or many top tokens, correlated within a prompt, and a few of all of
    them drawn at random, so that some prompts have none."""
    studies = 600
    values, of_prompt = correlated_tokens(prompts, studies)
    order = np.random.default_rng(0).random(values.shape)
    order[np.broadcast_to(np.arange(values.shape[1])[:, None], order.shape) >= of_prompt] = np.inf
    last = np.sort(order.reshape(-1, studies), 0)[drawn - 1]
    selected = (order <= last) & np.isfinite(order)
    means = resampled_means(values, selected, 1000)
    for count, measured in ((None, plain), (selected.any(1).sum(0), expanded)):
        _, low, high = interval(means, prompts=count)
        covered = ((low <= 1.0) & (high >= 1.0)).mean()
        assert covered == pytest.approx(measured, abs=0.035)  # its standard error is 0.01


# Prompts, drawn ones of them, and what expanded percentiles cover in 4,000 studies (measured).
OF_PROMPTS = [(10, 4, 0.87), (20, 5, 0.94), (64, 6, 0.96), (64, 24, 0.94)]


@pytest.mark.parametrize(("prompts", "drawn", "expanded"), OF_PROMPTS)
def test_intervals_cover_the_truth_when_prompts_are_drawn(prompts, drawn, expanded):
    """The same prompts; of some of them, drawn at random, all tokens."""
    studies = 600
    values, of_prompt = correlated_tokens(prompts, studies)
    chosen = np.random.default_rng(1).random((prompts, 1, studies)).argsort(0).argsort(0) < drawn
    selected = chosen & (np.arange(values.shape[1])[:, None] < of_prompt)
    _, low, high = interval(resampled_means(values, selected, 1000), prompts=drawn)
    covered = ((low <= 1.0) & (high >= 1.0)).mean()
    assert covered == pytest.approx(expanded, abs=0.035)


def correlated_tokens(prompts: int, studies: int) -> tuple[np.ndarray, np.ndarray]:
    """Values [prompt, token, study] around 1, correlated within a prompt, and how many of its tokens are
    top tokens, few or many."""
    most, draw = 12, np.random.default_rng(prompts)
    of_prompt = 1 + draw.negative_binomial(1.5, 0.27, size=(prompts, 1, studies)).clip(0, most - 1)
    values = 1 + 0.7 * draw.normal(size=(prompts, 1, studies))
    return values + draw.normal(size=(prompts, most, studies)), of_prompt


def test_totals_over_instances_equal_a_loop():
    values, prompt = np.random.default_rng(0).normal(size=(7, 2)), np.array([0, 0, 2, 1, 2, 2, 0])
    weights = prompt_weights(4, 20, seed=0)
    totals = resampled_totals(values, prompt, weights)
    for total, weight in zip(totals, weights, strict=True):
        assert total == pytest.approx((weight[prompt][:, None] * values).sum(0))


def test_the_mean_over_heads_is_over_those_with_a_value():
    estimates = np.array([[1.0, 2.0, 6.0], [1.0, np.nan, 6.0], [np.nan, 2.0, np.nan]])
    assert mean_over_heads(estimates).tolist() == [3.0, 3.5, 2.0]
    assert np.isnan(mean_over_heads(np.full((2, 3), np.nan))).all()
