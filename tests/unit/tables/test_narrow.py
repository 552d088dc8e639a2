"""Tables of the narrow task (E18) against plain loops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from documented import documented_columns
from selfrepair.claims.claims import CLAIMS, UNDECIDED
from selfrepair.claims.judge import judge
from selfrepair.tables.narrow import (
    ALL_HEADS,
    JUDGED,
    POSITIVE,
    TABLE_SCHEMA,
    centred,
    does_task,
    narrow_tables,
    no_narrow_tables,
    overlap,
    rank_correlations,
    taking_over,
    taking_over_on_text,
)
from selfrepair.vocabulary import ALL, EFFECTS, SECOND_HALF, TERMS, TOP, bounded

LAYERS, HEADS = 4, 3
SHAPE = (LAYERS, HEADS)
OPTIONS = {"model": "m", "seed": 0, "resamples": 1000}
CLAIM = "narrow_repair_is_that_of_text"


def shard(prompts: int, *, seed: int, right: float = 0.9) -> dict[str, np.ndarray]:
    """The arrays of a shard; right: the share of prompts in which the answer is ahead."""
    draw = np.random.default_rng(seed)
    terms = {name: draw.normal(0.1, 0.3, (prompts, *SHAPE)) for name in TERMS}
    del terms["from_post_norms"]
    # Heads differ, so that their order is not noise alone.
    terms["from_norm"] += np.arange(LAYERS * HEADS).reshape(SHAPE) / 4
    effect = draw.normal(1, 0.2, (prompts, *SHAPE))
    ahead = np.where(np.arange(prompts) < right * prompts, 1.0, -1.0)
    changes = draw.normal(0, 0.2, (*SHAPE, *SHAPE)).round(3)
    return {
        "answer_logit": ahead * draw.uniform(0.5, 2, prompts),
        "subject_logit": np.zeros(prompts),
        "most_likely": draw.random(prompts) < 0.5,
        "direct_effect": effect,
        "ablated_direct_effect": 0.1 * effect,
        "self_repair": sum(terms.values()),
        **{name: values.astype(np.float16) for name, values in terms.items()},
        "map.sums": changes * prompts,
        "map.prompts": np.array([prompts]),
    }


def text(
    *,
    selections: tuple[str, ...] = (TOP, ALL),
    ablation: str = "resample",
    left_out: Sequence[tuple[int, int]] = (),
) -> pl.DataFrame:
    """A table of heads; the last head has no tokens, and those left out were not ablated."""
    draw = np.random.default_rng(9)
    rows = []
    for selection in selections:
        for layer, head in np.ndindex(*SHAPE):
            row = {"model": "m", "ablation": ablation, "selection": selection}
            row |= {"layer": layer, "head": head}
            tokens = None if (layer, head) in left_out else 6 * ((layer, head) != (3, 2))
            row |= {"n_tokens": tokens}
            for name in ("self_repair", "direct_effect"):
                value = draw.normal() + layer if (layer, head) != (3, 2) else np.nan
                value = np.nan if tokens is None else value
                row |= dict(zip(bounded(name), (value, value - 1, value + 1), strict=True))
            rows.append(row)
    return pl.DataFrame(rows)


def map_of_text() -> pl.DataFrame:
    rows = [
        (0, 0, "head", 2, 1, 0.5, 0.4),
        (1, 0, "head", 2, 1, 0.25, 0.1),
        (1, 1, "head", 3, 0, 0.3, 0.01),
        (1, 0, "head", 3, 0, 0.2, -0.01),  # not told from none
        (1, 1, "head", 3, 1, -0.9, -1.0),  # it does less
        (1, 1, "mlp", 3, None, 0.7, 0.6),
        (1, 2, "other heads", None, None, 0.4, 0.3),
    ]
    names = ["layer", "head", "kind", "component_layer", "component_head", "mean", "low"]
    return pl.DataFrame(rows, schema=names, orient="row").with_columns(ablation=pl.lit("resample"))


@pytest.fixture(scope="module")
def shards():
    return [shard(8, seed=1), shard(6, seed=2)]


@pytest.fixture(scope="module")
def tables(shards):
    return narrow_tables(shards, heads=text(), repair_map=map_of_text(), **OPTIONS)


def values_of(shards, name: str) -> np.ndarray:
    return np.concatenate([np.asarray(part[name], float) for part in shards])


def spearman(x, y) -> float:
    ranks = [pl.Series(each).rank("average").to_numpy() for each in (x, y)]
    return float(np.corrcoef(*ranks)[0, 1])


def by_quantity(summaries: pl.DataFrame) -> dict[tuple[str, str], dict]:
    return {(row["quantity"], row["group"]): row for row in summaries.to_dicts()}


def test_a_row_has_the_means_of_its_head_on_the_task_and_on_text(shards, tables):
    table, _ = tables
    assert table.height == LAYERS * HEADS
    there = {(row["layer"], row["head"]): row for row in text().filter(selection=TOP).to_dicts()}
    for row in table.to_dicts():
        at = row["layer"], row["head"]
        measured = {
            name: values_of(shards, name)[(slice(None), *at)]
            for name in EFFECTS
            if name not in ("delta_logit", "from_post_norms")
        }
        removed = measured["direct_effect"] - measured["ablated_direct_effect"]
        measured["delta_logit"] = measured["self_repair"] - removed
        for name, values in measured.items():
            assert row[name] == pytest.approx(values.mean(), rel=1e-5)
            assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]
        assert row["from_post_norms"] == 0
        for name in ("self_repair", "direct_effect"):
            for column in bounded(name):
                assert row[f"full_{column}"] == pytest.approx(there[at][column], nan_ok=True)
        assert (row["n_tokens"], row["n_prompts"]) == (14, 14)


def test_what_a_head_takes_over_is_the_sum_of_its_large_changes(shards, tables):
    table, _ = tables
    mean = np.round(sum(np.asarray(part["map.sums"], float) for part in shards) / 14, 3)
    for row in table.to_dicts():
        at, total = (row["layer"], row["head"]), 0.0
        for ablated in np.ndindex(*SHAPE):
            change = mean[(*ablated, *at)]
            if ablated[0] < at[0] and change >= 0.02:
                total += change
        assert row["takes_over"] == pytest.approx(total, rel=1e-5)
        on_text = {(2, 1): 0.75, (3, 0): 0.3}.get(at, 0.0)
        assert row["full_takes_over"] == pytest.approx(on_text)


def test_correlations_are_over_heads_that_have_a_value_on_text(shards, tables):
    found = by_quantity(tables[1])
    for name in ("self_repair", "direct_effect"):
        here = values_of(shards, name).mean(0)
        for selection, tokens in ((TOP, "top tokens"), (ALL, "all tokens")):
            there = text().filter(selection=selection)[name].to_numpy().reshape(SHAPE)
            for group, layers in ((SECOND_HALF, slice(2, 4)), (ALL_HEADS, slice(0, 4))):
                x, y = here[layers].ravel()[:-1], there[layers].ravel()[:-1]
                row = found[f"{name}_correlation", f"{group}, {tokens}"]
                assert row["value"] == pytest.approx(spearman(x, y))
                assert -1 <= row["low"] <= row["high"] <= 1
                assert row["n_tokens"] == 14 * len(x)
    judged = found["self_repair_correlation", JUDGED]
    same = found["self_repair_correlation", f"{SECOND_HALF}, top tokens"]
    assert (judged["value"], judged["low"]) == (same["value"], same["low"])


def test_heads_with_a_positive_effect_are_also_taken_alone(shards):
    turned = [dict(part) for part in shards]
    for part in turned:
        effect = part["direct_effect"].copy()
        effect[:, 2, 1] *= -1
        part["direct_effect"] = effect
    _, summaries = narrow_tables(turned, heads=text(), repair_map=map_of_text(), **OPTIONS)
    row = by_quantity(summaries)["self_repair_correlation", f"{POSITIVE}, top tokens"]
    here = values_of(shards, "self_repair").mean(0)[2:].ravel()
    there = text().filter(selection=TOP)["self_repair"].to_numpy().reshape(SHAPE)[2:].ravel()
    kept = [0, 2, 3, 4]  # not head 1 of layer 2, nor the last, which has no value on text
    assert row["value"] == pytest.approx(spearman(here[kept], there[kept]))
    assert row["n_tokens"] == 14 * len(kept)


def test_halves_of_the_prompts_have_both_orders(shards, tables):
    found = by_quantity(tables[1])
    values = values_of(shards, "self_repair")
    first = [0, 1, 4, 5, 8, 9, 12, 13]
    second = [2, 3, 6, 7, 10, 11]
    halves = (values[rows].mean(0).ravel() for rows in (first, second))
    row = found["self_repair_split_half", ALL_HEADS]
    half = spearman(*halves)
    assert row["value"] == pytest.approx(2 * half / (1 + half))
    assert row["value"] > 0.5
    assert np.isnan(row["low"])


def test_the_task_itself(shards, tables):
    found = by_quantity(tables[1])
    answer = values_of(shards, "answer_logit")
    assert found["accuracy", ""]["value"] == pytest.approx((answer > 0).mean())
    assert found["logit_difference", ""]["value"] == pytest.approx(answer.mean())
    assert found["most_likely", ""]["value"] == pytest.approx(
        values_of(shards, "most_likely").mean()
    )
    assert found["accuracy", ""]["n_tokens"] == 14
    late = values_of(shards, "self_repair")[:, 2:]
    assert found["self_repair", SECOND_HALF]["value"] == pytest.approx(late.mean())
    assert found["self_repair", SECOND_HALF]["low"] < late.mean()


def test_one_shard_or_two_is_the_same(shards):
    whole = {
        name: sum(part[name] for part in shards)
        if name.startswith("map.")
        else np.concatenate([part[name] for part in shards])
        for name in shards[0]
    }
    asked = {"heads": text(), "repair_map": map_of_text(), **OPTIONS}
    for one, two in zip(
        narrow_tables([whole], **asked), narrow_tables(shards, **asked), strict=True
    ):
        assert one.equals(two, null_equal=True)


def test_a_model_that_does_not_do_the_task_is_reported_and_not_judged(tables):
    guessing = [shard(14, seed=3, right=0.5)]
    _, summaries = narrow_tables(guessing, heads=text(), repair_map=map_of_text(), **OPTIONS)
    found = by_quantity(summaries)
    assert found["accuracy", ""]["low"] < 0.5 < found["accuracy", ""]["high"]
    assert ("self_repair_correlation", JUDGED) not in found
    assert len(found) == len(by_quantity(tables[1])) - 1
    depth = pl.DataFrame({"model": ["m"], "ablation": "mean", "selection": "top", "depth": "none"})
    verdicts = {
        name: judge(depth, summary).filter(id=CLAIM).to_dicts()[0]
        for name, summary in (("able", tables[1]), ("guessing", summaries))
    }
    assert verdicts["guessing"]["verdict"] == UNDECIDED
    assert verdicts["guessing"]["value"] is None
    judged = by_quantity(tables[1])["self_repair_correlation", JUDGED]
    assert verdicts["able"]["value"] == judged["value"]


def test_the_claim_reads_the_judged_row():
    (claim,) = (claim for claim in CLAIMS if claim.id == CLAIM)
    assert claim.value.group == JUDGED
    assert claim.value.quantity == "self_repair_correlation"


@pytest.mark.parametrize(("right", "does"), [(16, True), (13, True), (9, False), (3, False)])
def test_doing_the_task_is_an_accuracy_above_chance(right, does):
    draw = np.random.default_rng(0)
    ahead = np.arange(16) < right
    resampled = [ahead.mean(), *(draw.choice(ahead, 16).mean() for _ in range(1000))]
    assert does_task(np.array(resampled), n_prompts=16) is does


def test_of_one_prompt_nothing_is_certain():
    table, summaries = narrow_tables(
        [shard(1, seed=1)], heads=text(), repair_map=map_of_text(), **OPTIONS
    )
    assert table["self_repair_low"].is_nan().all()
    found = by_quantity(summaries)
    assert ("self_repair_correlation", JUDGED) not in found
    assert np.isnan(found["accuracy", ""]["low"])


def test_without_resample_ablation_or_a_map_there_is_nothing_to_compare(shards):
    table, summaries = narrow_tables(
        shards, heads=text(ablation="zero"), repair_map=map_of_text().clear(), **OPTIONS
    )
    assert table["full_self_repair"].is_nan().all()
    assert table["full_takes_over"].is_nan().all()
    names = {quantity for quantity, _ in by_quantity(summaries)}
    assert "accuracy" in names
    assert not {name for name in names if "correlation" in name or "overlap" in name}


def test_of_heads_that_were_left_out_nothing_is_compared(shards, tables):
    """Neither the groups that they are in, nor what would be taken over from them."""
    early = text(left_out=[(0, 1)])
    table, summaries = narrow_tables(shards, heads=early, repair_map=map_of_text(), **OPTIONS)
    found, full = by_quantity(summaries), by_quantity(tables[1])
    name = "self_repair_correlation"
    assert np.isnan(found[name, f"{ALL_HEADS}, top tokens"]["value"])
    for group in (f"{SECOND_HALF}, top tokens", JUDGED):
        assert found[name, group]["value"] == pytest.approx(full[name, group]["value"])
    assert table["full_takes_over"].is_nan().all()
    assert not [quantity for quantity, _ in found if "overlap" in quantity]
    late = text(left_out=[(3, 0)])
    _, summaries = narrow_tables(shards, heads=late, repair_map=map_of_text(), **OPTIONS)
    depth = pl.DataFrame({"model": ["m"], "ablation": "mean", "selection": "top", "depth": "none"})
    (row,) = judge(depth, summaries).filter(id=CLAIM).to_dicts()
    assert (row["value"], row["verdict"]) == (None, UNDECIDED)
    assert by_quantity(summaries)["accuracy", ""] == full["accuracy", ""]


@pytest.mark.parametrize("empty", ["no shards", "no prompts"])
def test_without_a_prompt_the_tables_have_no_row(empty, tables):
    shards = [] if empty == "no shards" else [shard(0, seed=0)]
    found = narrow_tables(shards, heads=text(), repair_map=map_of_text(), **OPTIONS)
    for each, full, none in zip(found, tables, no_narrow_tables(), strict=True):
        assert each.is_empty()
        assert each.schema == full.schema == none.schema


def test_columns_are_documented(tables):
    table, _ = tables
    assert documented_columns("narrow_heads") == set(table.columns) == set(TABLE_SCHEMA)


# --- pieces ------------------------------------------------------------------------------------


def test_rank_correlations_of_many_resamples():
    draw = np.random.default_rng(0)
    x, y = draw.normal(0, 1, (2, 20, 9))
    x[3, 4] = np.nan
    found = rank_correlations(x, y)
    assert np.isnan(found[3])
    for row in (0, 1, 2, 19):
        assert found[row] == pytest.approx(spearman(x[row], y[row]))


def test_only_later_heads_take_over():
    changes = np.ones((*SHAPE, *SHAPE))
    changes[0, 0] = 0.019
    found = taking_over(changes)
    assert found[:, 0].tolist() == [0.0, 2.0, 5.0, 8.0]
    assert np.isnan(taking_over_on_text(map_of_text().clear(), *SHAPE)).all()


def test_heads_that_take_over_nothing_are_none_of_the_strongest():
    first, second = np.zeros((5, 6)), np.zeros((5, 6))
    first[1, :3], second[2, :5] = 1.0, 1.0
    common, expected, count = overlap(first, second)
    assert (common, count) == (0.0, 3)
    assert expected["any heads"] == pytest.approx(3 / 24)
    assert overlap(first, np.zeros((5, 6)))[1:] == ({}, 0)
    assert overlap(np.ones((1, 6)), np.ones((1, 6)))[1:] == ({}, 0)  # one layer: none is later


def test_an_interval_of_a_correlation_is_centred_on_its_value():
    draw = np.random.default_rng(0)
    found = centred(np.concatenate([[0.8], draw.normal(0.6, 0.05, 1000)]))
    assert found[0] == 0.8
    low, high = np.quantile(found[1:], [0.025, 0.975])
    assert low < 0.8 < high
    assert np.arctanh(found[1:]).mean() == pytest.approx(np.arctanh(0.8))
    assert np.isnan(centred(np.array([np.nan, 0.1]))[0])


def test_overlap_and_what_chance_gives():
    # 24 heads that can back up another; ten of each are the largest, four of them the same.
    first, second = np.zeros((5, 6)), np.zeros((5, 6))
    first[0] = second[0] = 9.0  # in the first layer: not counted
    first[1], first[2, :4] = 1.0, 1.0
    second[2], second[3, :4] = 1.0, 1.0
    common, expected, count = overlap(first, second)
    assert count == 10
    assert common == pytest.approx(0.4)
    assert expected["any heads"] == pytest.approx(10 / 24)
    # Layer 2 alone is in both: 4 x 6 pairs of heads, of which one in 6 is a head with itself.
    assert expected["heads of the same layers"] == pytest.approx(0.4)
    draw, same = np.random.default_rng(0), []
    for _ in range(2000):
        sets = [
            {(layer, h) for layer, n in layers for h in draw.permutation(6)[:n]}
            for layers in (((1, 6), (2, 4)), ((2, 6), (3, 4)))
        ]
        same.append(len(sets[0] & sets[1]) / 10)
    assert np.mean(same) == pytest.approx(expected["heads of the same layers"], abs=0.01)
