"""What follows from the definitions of selections, draws, sums, means and intervals, on numbers made up at random."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from selfrepair.errors import InputError
from selfrepair.measure.clean_pass import _candidates
from selfrepair.measure.drawing import DrawnTokens, draw_tokens
from selfrepair.measure.prompt_sums import (
    LARGEST,
    SUMS,
    UNIT,
    histogram_quantiles,
    histograms,
    instance_sums,
    joined,
    summed,
)
from selfrepair.measure.ranking import rank
from selfrepair.measure.sweep_result import SweepResult
from selfrepair.tables.bootstrap import divide, interval, prompt_weights, resampled_totals, tail
from selfrepair.tables.depth import DepthMeans
from selfrepair.tables.estimates import resampled_means
from selfrepair.vocabulary import ALL, EFFECTS, SHARED_EFFECTS, TOP, depth_groups

seeds = st.integers(0, 2**16)


def numbers(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- top tokens and draws ------------------------------------------------------------------------


@given(
    st.tuples(st.integers(1, 6), st.integers(2, 5), st.integers(1, 2), st.integers(1, 3)),
    st.integers(1, 4),
    seeds,
    st.sampled_from([0.2, 0.5, 1.0]),
    st.data(),
)
def test_top_tokens_of_shards_with_ties_are_those_of_a_plain_sort(
    shape: tuple[int, ...], values: int, seed: int, share: float, data: st.DataObject
) -> None:
    """Direct effects are a few whole numbers, so most are tied; the earlier token comes first. Shards that kept too
    few candidates to tell are refused, and those that kept all never are."""
    prompts, positions, layers, heads = shape
    first = data.draw(st.integers(0, positions - 1))
    effect = torch.randint(values, shape, generator=torch.Generator().manual_seed(seed)).float()
    cuts = sorted(data.draw(st.sets(st.integers(0, prompts))) | {0, prompts})
    shards, kept = [], data.draw(st.sampled_from([1.0, 0.5, 0.2]))
    for rows in map(slice, cuts, cuts[1:]):
        columns = [_candidates(effect[rows, :, layer], kept, first) for layer in range(layers)]
        candidate, value, left_out = map(torch.stack, zip(*columns, strict=True))
        of_prompts = effect[rows, :, 0, 0]
        shards.append(
            {
                "candidate": candidate,
                "candidate_effect": value,
                "left_out": left_out,
                "effect_sum": effect[rows, first:].sum((0, 1)).double(),
                "z_sum": torch.zeros(layers, heads, 2).double(),
                "z_tokens": torch.tensor([1]),
                **dict.fromkeys(("scale", "logit", "surprisal"), of_prompts),
            }
        )
    tokens = [p * positions + at for p in range(prompts) for at in range(first, positions)]
    count = math.floor(share * len(tokens) + 1e-9)
    assume(count)
    try:
        found = rank(shards, first_position=first, share=share)
    except InputError:
        assert kept < 1
        return
    flat = effect.flatten(0, 1)
    for layer in range(layers):
        for head in range(heads):
            order = sorted(tokens, key=lambda t, at=(layer, head): (-float(flat[t][at]), t))
            assert found.top_token[layer, head].tolist() == order[:count]
            expected = flat[order[:count], layer, head]
            assert torch.equal(found.top_effect[layer, head], expected)
    mean = effect[:, first:].double().mean((0, 1))
    assert torch.allclose(found.mean_direct_effect.double(), mean, rtol=1e-6)


@given(
    st.tuples(st.integers(1, 9), st.integers(2, 7), st.integers(1, 2), st.integers(1, 3)),
    st.integers(1, 12),
    st.integers(0, 12),
    seeds,
    st.data(),
)
def test_what_is_drawn_of_a_head_depends_on_nothing_else(
    shape: tuple[int, ...], of_top: int, of_all: int, seed: int, data: st.DataObject
) -> None:
    prompts, positions, layers, heads = shape
    first, drawn_from = data.draw(st.integers(0, 1)), data.draw(st.integers(1, prompts))
    top = numbers((layers, heads, prompts * positions), seed).argsort(-1)[..., : positions + 1]
    asked: dict[str, Any] = {
        "positions": positions,
        "prompts": drawn_from,
        "tokens_per_head": of_top,
        "random_tokens_per_head": of_all,
        "first_position": first,
        "seed": seed,
    }
    drawn = draw_tokens(top, **asked)
    for layer in range(layers):
        for head in range(heads):
            own = drawn.where((drawn.layer == layer) & (drawn.head == head))
            alone = draw_tokens(top, **asked, heads=[(layer, head)])
            assert places(own) == places(alone)
            tokens = (own.prompt * positions + own.position)[own.top].tolist()
            pool = {int(t) for t in top[layer, head] if t < drawn_from * positions}
            assert set(tokens) <= pool
            assert len(set(tokens)) == len(tokens) == min(of_top, len(pool))
            random = own.where(own.random)
            allowed = drawn_from * (positions - first)
            assert len(random) == min(of_all, allowed)
            assert bool((random.position >= first).all())
            assert bool((own.top | own.random).all())
    assert places(drawn) == sorted(places(drawn))
    cut = data.draw(st.integers(0, prompts))
    halves = drawn.in_prompts(range(cut)), drawn.in_prompts(range(cut, prompts))
    assert sum(map(len, halves)) == len(drawn)
    assert bool((halves[1].prompt + cut >= cut).all())


def places(drawn: DrawnTokens) -> list[tuple[int, ...]]:
    columns = (drawn.prompt, drawn.layer, drawn.head, drawn.position)
    return list(zip(*(each.tolist() for each in columns), strict=True))


# --- sums and means ------------------------------------------------------------------------------


def invented(shape: tuple[int, ...], seed: int) -> SweepResult:
    """A result of numbers that are 0 now and then."""
    arrays = {name: numbers(shape, 31 * seed + at) for at, name in enumerate(EFFECTS)}
    arrays["direct_effect"] = arrays["direct_effect"].where(numbers(shape, seed) < 1, 0.0)
    return SweepResult(
        **arrays,
        ablated_scale=arrays["self_repair"],
        scale=arrays["self_repair"][..., 0, 0],
        conservation_error=0.0,
        decomposition_error=0.0,
        has_post_norms=True,
    )


def part_of(result: SweepResult, rows: slice) -> SweepResult:
    arrays = {name: values[rows] for name, values in result.arrays().items()}
    return SweepResult(
        **arrays, conservation_error=0.0, decomposition_error=0.0, has_post_norms=True
    )


@given(
    st.tuples(st.integers(1, 7), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3)),
    seeds,
    st.data(),
)
def test_sums_and_means_of_shards_are_those_of_the_whole(
    shape: tuple[int, ...], seed: int, data: st.DataObject
) -> None:
    prompts, positions, layers, heads = shape
    result, first = invented(shape, seed), data.draw(st.integers(0, positions - 1))
    top = numbers(shape, seed + 1) < 0
    top[:, :first] = False
    whole = summed(result, top, first_position=first)
    cuts = sorted(data.draw(st.sets(st.integers(0, prompts))) | {0, prompts})
    rows = list(map(slice, cuts, cuts[1:]))
    parts = joined([summed(part_of(result, r), top[r], first_position=first) for r in rows])
    assert parts.keys() == whole.keys()
    for name, values in whole.items():
        assert torch.equal(parts[name], values), name
    every = torch.ones(shape, dtype=torch.bool)
    every[:, :first] = False
    for selection, selected in ((TOP, top), (ALL, every)):
        for layer in range(layers):
            sums = {n: whole[f"{selection}.{n}"][:, layer].numpy() for n in SUMS}
            check_means(result, selected, layer, sums)
            prompt, position, head = selected[:, :, layer].nonzero().T
            values = {n: getattr(result, n)[prompt, position, layer, head] for n in EFFECTS}
            drawn = {"prompt": prompt, "head": head} | values
            for name, found in instance_sums(drawn, prompts=prompts, n_heads=heads).items():
                np.testing.assert_allclose(found.numpy(), sums[name], atol=1e-12)
        any_head = selected.any(3)
        for at, group in enumerate(depth_groups(layers).values()):
            tokens = whole[f"{selection}.group_tokens"][:, at]
            assert tokens.tolist() == any_head[:, :, group].any(2).sum(1).tolist()


def check_means(
    result: SweepResult, selected: torch.Tensor, layer: int, sums: dict[str, np.ndarray]
) -> None:
    """The value on the sample is what a plain mean over the head's tokens gives, in any order of prompts."""
    weights = np.ones((1, len(selected)))
    means = resampled_means(sums, weights)
    turned = resampled_means({name: values[::-1] for name, values in sums.items()}, weights)
    for head in range(selected.shape[3]):
        here = selected[:, :, layer, head]
        values = {n: getattr(result, n)[:, :, layer, head][here].numpy() for n in EFFECTS}
        direct, repair = values["direct_effect"], values["self_repair"]
        expected = {name: each.mean() if len(each) else np.nan for name, each in values.items()}
        known = direct != 0
        for name in SHARED_EFFECTS:
            ratios = np.clip(values[name][known] / direct[known], 0, 1)
            expected[f"{name}_share_clipped"] = ratios.mean() if len(ratios) else np.nan
        rises = values["delta_logit"][direct > 0] > 0
        expected["over_corrected_share"] = rises.mean() if len(rises) else np.nan
        enough = len(repair) > 1
        expected["self_repair_variance"] = repair.var(ddof=1) if enough else np.nan
        for name, value in expected.items():
            found = means[name][0, head], turned[name][0, head]
            np.testing.assert_allclose(found, value, rtol=1e-9, atol=1e-12, err_msg=name)


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 2)),
    seeds,
    st.sampled_from([0.01, 1.0, 5.0]),
)
def test_quantiles_of_a_histogram_are_near_the_exact_ones(
    shape: tuple[int, ...], seed: int, spread: float
) -> None:
    """To 1.5 % of sqrt(r^2 + UNIT^2), half a bin."""
    ratio = spread * numbers(shape, seed)
    assume(bool((ratio.abs() < LARGEST).all()))
    direct = numbers(shape, seed + 1).sign()
    selected = numbers(shape, seed + 2) < 1
    counts = histograms({"direct_effect": direct, "self_repair": ratio * direct}, selected)
    levels = (0.0, 0.05, 0.25, 0.5, 0.95, 1.0)
    found = histogram_quantiles(counts[:, 0].numpy(), levels)
    for head in range(shape[2]):
        values = ratio[..., head][selected[..., head]].numpy()
        assert int(counts[head].sum()) == len(values)
        if not len(values):
            assert np.isnan(found[:, head]).all()
            continue
        exact = np.quantile(values, levels)
        # A quantile lies between two values, each known to half a bin.
        near = 0.0151 * np.hypot(np.abs(values).max(), UNIT)
        assert (np.abs(found[:, head] - exact) <= near).all()


@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 4), seeds)
def test_means_by_depth_are_plain_means_over_heads(
    layers: int, heads: int, resamples: int, seed: int
) -> None:
    """Over those that have a value."""
    values = numbers((layers, resamples, heads), seed).numpy()
    values[numbers(values.shape, seed + 1).numpy() > 1] = np.nan
    values[:, :, 0] = np.nan_to_num(values[:, :, 0])
    depth = DepthMeans(layers)
    for layer in range(layers):
        depth.add(layer, {"delta_logit": values[layer]})
    for group, own in depth_groups(layers).items():
        total, known = depth._sums[group]["delta_logit"]
        together = np.concatenate([values[layer] for layer in own], 1)
        np.testing.assert_allclose(divide(total, known), np.nanmean(together, 1), atol=1e-12)
        assert depth._n_heads[group] == heads * len(own)


# --- intervals -----------------------------------------------------------------------------------

finite = st.floats(-1e3, 1e3, width=32)


@given(arrays(np.float64, st.integers(2, 30), elements=finite), st.integers(20, 200), seeds)
def test_an_interval_lies_where_it_must(values: np.ndarray, resamples: int, seed: int) -> None:
    """Between the smallest and the largest prompt; it moves and stretches with the numbers, and duplicated tokens
    leave it as it is."""
    prompts = len(values)
    weights = prompt_weights(prompts, resamples, seed=seed)
    assert (weights.sum(1) == prompts).all()
    counts = np.ones(prompts)
    means = divide(weights @ values, weights @ counts)
    value, low, high = interval(means, prompts=prompts)
    slack = 1e-9 * (1 + np.abs(values).max())
    assert abs(value - values.mean()) < slack
    assert values.min() - slack <= low <= high <= values.max() + slack
    plain = interval(means)
    assert low <= plain[1] + slack
    assert plain[2] <= high + slack
    moved = interval(3 - 2 * means, prompts=prompts)
    np.testing.assert_allclose(moved, (3 - 2 * value, 3 - 2 * high, 3 - 2 * low), atol=10 * slack)
    twice = divide(weights @ (2 * values), weights @ (2 * counts))
    np.testing.assert_allclose(interval(twice, prompts=prompts), (value, low, high), atol=slack)
    if np.ptp(values) == 0:
        assert high - low < slack


@given(st.integers(2, 200))
def test_fewer_prompts_make_no_narrower_an_interval(prompts: int) -> None:
    """Of two prompts it is so wide that its tail is below what a float can hold."""
    assert 0 <= tail(prompts) < tail(prompts + 1) < 0.025


@given(st.integers(1, 8), st.integers(0, 40), st.integers(1, 30), seeds)
def test_totals_of_resamples_are_those_of_prompts_drawn_again(
    prompts: int, instances: int, resamples: int, seed: int
) -> None:
    values = numbers((instances, 2), seed).numpy()
    prompt = np.random.default_rng(seed).integers(0, prompts, instances)
    weights = np.nan_to_num(prompt_weights(prompts, resamples, seed=seed))
    found = resampled_totals(values, prompt, weights)
    for row, weight in zip(found, weights, strict=True):
        again = np.repeat(np.arange(prompts), weight.astype(int))
        expected = sum((values[prompt == p].sum(0) for p in again), np.zeros(2))
        np.testing.assert_allclose(row, expected, atol=1e-9)
