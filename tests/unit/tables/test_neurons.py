"""Neuron tables against plain loops over made-up instances; overlap of sets."""

import itertools

import numpy as np
import polars as pl
import pytest
import torch

from selfrepair.errors import InputError
from selfrepair.measure.neuron_bins import BINS, EDGES, group_ends
from selfrepair.tables.neurons import (
    THRESHOLDS,
    neuron_regions,
    neuron_tables,
    no_neuron_tables,
)
from selfrepair.vocabulary import NEURON_REGIONS

NEURONS, KEPT, PROMPTS = 40, 20, 6
HEADS, MLPS = [(2, 0), (3, 1)], [3]


def shard(prompts, *, seed):
    """Instances of both heads with changes drawn at random, reduced as a shard is."""
    draw = np.random.default_rng(seed)
    rows = [(h, p, int(k)) for h in range(2) for p in prompts for k in draw.choice(30, 3, False)]
    clean = draw.normal(-0.1, 0.3, (len(rows), NEURONS))
    change = draw.normal(0, 0.2, (len(rows), NEURONS)) ** 3 * 10
    order = np.argsort(-change, 1, kind="stable")
    ranked = np.take_along_axis(change, order, 1)
    kept = order[:, :KEPT]
    ends = group_ends(NEURONS).numpy()
    curves = np.abs(ranked).cumsum(1) / np.abs(ranked).sum(1, keepdims=True)
    head = np.array([row[0] for row in rows])
    counts = np.zeros((2, 1, len(ends), BINS), dtype=np.int64)
    for row, h in enumerate(head):
        bins = np.searchsorted(EDGES.numpy(), np.take_along_axis(clean, order, 1)[row])
        group = np.searchsorted(ends, np.arange(1, NEURONS + 1))
        np.add.at(counts, (h, 0, group, bins), 1)
    arrays = {
        "head": head,
        "prompt": np.array([row[1] for row in rows]),
        "position": np.array([row[2] for row in rows]),
        "head_effect": draw.uniform(0.5, 2, len(rows)).astype(np.float32),
        "mlp_effect": clean.sum(1, keepdims=True).astype(np.float32),
        "mlp_ablated_effect": (clean + change).sum(1, keepdims=True).astype(np.float32),
        "neuron": kept[:, None],
        "neuron_effect": np.take_along_axis(clean, kept, 1)[:, None].astype(np.float32),
        "neuron_ablated_effect": np.take_along_axis(clean + change, kept, 1)[:, None].astype(
            np.float32
        ),
        "positive_sum": change.clip(0).sum(1, keepdims=True).astype(np.float32),
        "absolute_sum": np.abs(change).sum(1, keepdims=True).astype(np.float32),
        "top_percent_sum": ranked[:, :1].clip(0).astype(np.float32),
        "cumulative_share": np.stack([curves[head == h][:, ends - 1].sum(0) for h in range(2)])[
            :, None
        ],
        "n_curves": np.array([[(head == h).sum()] for h in range(2)]),
        "effect_counts": counts,
    }
    return {name: torch.from_numpy(values) for name, values in arrays.items()}, (clean, order)


@pytest.fixture(scope="module")
def parts():
    return [shard([0, 1, 2], seed=0), shard([3, 5], seed=1)]


@pytest.fixture(scope="module")
def tables(parts):
    return neuron_tables(
        [arrays for arrays, _ in parts],
        HEADS,
        MLPS,
        n_neurons=NEURONS,
        n_prompts=PROMPTS,
        model="m",
        seed=0,
        resamples=1000,
    )


def instances(parts, index):
    """Rows of one head as plain dictionaries."""
    for arrays, _ in parts:
        for row in range(len(arrays["head"])):
            if int(arrays["head"][row]) == index:
                yield {name: v[row].numpy() for name, v in arrays.items() if len(v) > 2}


def test_ranks_count_how_often_a_neuron_repairs_enough(parts, tables):
    row = tables.ranks.filter(layer=2, head=0, rank=2, threshold=0.05).row(0, named=True)
    hits = [
        one["neuron_ablated_effect"][0, 1] - one["neuron_effect"][0, 1] >= 0.05 * one["head_effect"]
        for one in instances(parts, 0)
    ]
    assert row["share"] == pytest.approx(np.mean(hits))
    assert row["low"] <= row["share"] <= row["high"]
    assert row["n_tokens"] == len(hits) == 15
    assert row["n_prompts"] == 5
    assert tables.ranks.height == 2 * KEPT * len(THRESHOLDS)


def test_the_curve_is_the_mean_over_instances_and_its_colour_a_median(parts, tables):
    curve = tables.curve.filter(layer=3, head=1)
    assert curve["rank_end"].to_list() == list(range(1, NEURONS + 1))
    assert curve["cumulative_share"][-1] == pytest.approx(1.0)
    total = sum(arrays["cumulative_share"][1, 0] for arrays, _ in parts)
    assert np.allclose(curve["cumulative_share"], total / 15)
    exact = np.median(
        np.concatenate(
            [
                np.take_along_axis(clean, order, 1)[arrays["head"].numpy() == 1]
                for arrays, (clean, order) in parts
            ]
        ),
        axis=0,
    )
    # The counts were of 15 values, so the median is one of them up to the width of its bin.
    assert np.allclose(curve["median_direct_effect"], exact, rtol=0.02, atol=1e-5)


def test_the_top_neuron_of_each_instance_has_its_region(parts, tables):
    row = tables.top_neurons.filter(layer=2, head=0).row(0, named=True)
    one = next(instances(parts, 0))
    assert (row["prompt"], row["position"]) == (int(one["prompt"]), int(one["position"]))
    assert row["neuron"] == one["neuron"][0, 0]
    assert row["direct_effect"] == pytest.approx(one["neuron_effect"][0, 0])
    assert row["mlp_direct_effect"] == pytest.approx(one["mlp_effect"][0])
    assert tables.top_neurons.height == 30


@pytest.mark.parametrize(
    ("clean", "ablated", "region"),
    [
        (-1.0, -2.0, "erases more"),
        (-1.0, -1.0, "erases more"),
        (-1.0, -0.5, "erases less"),
        (-1.0, 0.0, "erases less"),
        (-1.0, 0.1, "erasure reversed"),
        (0.0, 5.0, "adds more or less"),
        (1.0, -1.0, "adds more or less"),
    ],
)
def test_regions_of_neurons(clean, ablated, region):
    found = neuron_regions(np.array([clean]), np.array([ablated]))
    assert NEURON_REGIONS[found[0]] == region


def test_counts_and_overlap_are_those_of_sets(parts, tables):
    sets = [
        (
            int(one["prompt"]),
            {int(n) for n, r in zip(one["neuron"][0, :10], repaired, strict=True) if r},
        )
        for one in instances(parts, 1)
        for repaired in [(one["neuron_ablated_effect"] - one["neuron_effect"])[0, :10] > 0]
    ]
    counts = tables.counts.filter(layer=3, head=1)
    for row in counts.iter_rows(named=True):
        assert row["instances"] == sum(row["neuron"] in found for _, found in sets)
        assert row["prompts"] == len({p for p, found in sets if row["neuron"] in found})
    assert counts["instances"].is_sorted(descending=True)
    shared = [len(a & b) / 10 for (p, a), (q, b) in itertools.permutations(sets, 2) if p != q]
    row = tables.summaries.filter(experiment="E10", layer=3, head=1).row(0, named=True)
    assert row["value"] == pytest.approx(np.mean(shared))
    assert row["low"] < row["high"]


def test_headline_numbers_are_ratios_of_sums(parts, tables):
    rows = {
        name: np.array([one[name] for one in instances(parts, 0)])
        for name in ("positive_sum", "top_percent_sum", "neuron_effect", "neuron_ablated_effect")
    }
    summaries = tables.summaries.filter(layer=2, head=0)
    value = summaries.filter(quantity="top_percent_share")["value"].item()
    assert value == pytest.approx(rows["top_percent_sum"].sum() / rows["positive_sum"].sum())
    first = rows["neuron_effect"][:, 0, 0]
    anti = (first < 0) & (rows["neuron_ablated_effect"][:, 0, 0] > first)
    value = summaries.filter(quantity="anti_erasure_share")["value"].item()
    assert value == pytest.approx(anti.mean())
    heads = tables.summaries.filter(pl.col("layer").is_not_null(), quantity="anti_erasure_share")
    pooled = tables.summaries.filter(pl.col("layer").is_null(), quantity="anti_erasure_share")
    assert pooled["value"].item() == pytest.approx(heads["value"].mean())
    assert pooled["group"].item() == "MLP 3"


def test_no_instances_are_refused(parts):
    empty = {name: v[:0] if len(v) > 2 else v for name, v in parts[0][0].items()}
    with pytest.raises(
        InputError,
        match=r"neurons: none of the chosen heads. top tokens .* raise experiments.prompts",
    ):
        neuron_tables(
            [empty], HEADS, MLPS, n_neurons=NEURONS, n_prompts=6, model="m", seed=0, resamples=1000
        )


def test_an_mlp_that_cannot_see_a_head_says_nothing_about_it(parts, tables):
    """Its changes are zero: no share of them, and no part in the mean over heads."""
    blind = []
    for arrays, _ in parts:
        arrays = {name: values.clone() for name, values in arrays.items()}
        here = arrays["head"] == 1
        arrays["neuron_ablated_effect"][here] = arrays["neuron_effect"][here]
        for name in ("positive_sum", "absolute_sum", "top_percent_sum"):
            arrays[name][here] = 0
        for name in ("cumulative_share", "n_curves", "effect_counts"):
            arrays[name][1] = 0
        blind.append(arrays)
    sizes = {"n_neurons": NEURONS, "n_prompts": PROMPTS, "seed": 0, "resamples": 1000}
    found = neuron_tables(blind, HEADS, MLPS, model="m", **sizes).summaries
    for quantity in ("top_percent_share", "anti_erasure_share", "overlap"):
        rows = found.filter(quantity=quantity)
        assert rows.filter(layer=3)["value"].is_nan().all()
        assert rows.filter(pl.col("layer").is_null())["value"].item() == pytest.approx(
            rows.filter(layer=2)["value"].item()
        )


def test_a_head_without_a_value_in_a_resample_leaves_the_others_theirs(parts, tables):
    """Head [3, 1] keeps the instances of one prompt, which most resamples of few prompts miss."""
    few = []
    for arrays, _ in parts:
        lost = (arrays["head"] == 1) & (arrays["prompt"] != 0)
        few.append({name: v[~lost] if len(v) > 2 else v for name, v in arrays.items()})
    sizes = {"n_neurons": NEURONS, "n_prompts": PROMPTS, "seed": 0, "resamples": 1000}
    found = neuron_tables(few, HEADS, MLPS, model="m", **sizes).summaries
    overlap = found.filter(quantity="overlap")
    # One prompt has no pair of prompts, so the mean is that of the other head alone.
    assert overlap.filter(layer=3)["value"].is_nan().all()
    columns = ("value", "low", "high")
    over_heads = overlap.filter(pl.col("layer").is_null()).select(columns)
    assert over_heads.equals(overlap.filter(layer=2).select(columns))
    # A resample's mean lies between the values of the heads that it draws.
    share = found.filter(quantity="anti_erasure_share")
    both = share.filter(pl.col("layer").is_not_null())
    over_heads = share.filter(pl.col("layer").is_null())
    assert both["low"].min() <= over_heads["low"].item()
    assert over_heads["high"].item() <= both["high"].max()
    assert over_heads["value"].item() == pytest.approx(both["value"].mean())


def test_tables_of_a_model_without_neurons_have_the_same_columns_and_no_row(tables):
    for name, table in vars(no_neuron_tables()).items():
        assert table.is_empty()
        assert table.schema == getattr(tables, name).schema, name
