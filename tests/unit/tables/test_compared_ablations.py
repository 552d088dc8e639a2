"""Tables of heads under every ablation (E17) against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from documented import documented_columns
from selfrepair.measure.compared_ablations import QUANTITIES, no_comparison
from selfrepair.other_ablations import COMPARED, OPTIMAL, RANDOM, REMOVING
from selfrepair.tables.compared_ablations import (
    DIFFERENCE,
    MEANS,
    RATIO,
    TABLE_SCHEMA,
    compared_tables,
    no_compared_tables,
)

HEADS = [(3, 1), (2, 0), (1, 1)]
PROMPTS = 9
OPTIONS = {"n_prompts": PROMPTS, "model": "m", "seed": 0, "resamples": 1000}
LOSS = dict(zip(COMPARED, (0.3, 0.2, 0.5, 0.1, 0.25), strict=True))


def shard(prompts: range, *, seed: int) -> dict[str, torch.Tensor]:
    """Three tokens of the first two heads in each of these prompts; of the last head none."""
    draw = np.random.default_rng(seed)
    keys = np.array([(p, q, h) for p in prompts for q in range(3) for h in (0, 1)]).T
    count = keys.shape[1]
    effect = draw.uniform(1, 2, count)
    columns = {"prompt": keys[0], "position": keys[1], "head": keys[2], "direct_effect": effect}
    for number, ablation in enumerate(COMPARED):
        after = (
            effect + draw.normal(0, 0.3, count)
            if ablation == RANDOM
            else 0.1 * (number + 1) * effect
        )
        terms = [draw.normal(0.1, 0.05, count) for _ in QUANTITIES[3:]]
        repair = sum(terms)
        values = [after, after - effect + repair, repair, *terms]
        columns |= {f"{ablation}.{q}": v for q, v in zip(QUANTITIES, values, strict=True)}
    noise = draw.uniform(0.9, 1.1, (len(prompts), len(HEADS), len(COMPARED)))
    columns["loss"] = noise * [LOSS[name] for name in COMPARED]
    return {name: torch.from_numpy(values) for name, values in columns.items()}


@pytest.fixture(scope="module")
def shards():
    return [shard(range(4), seed=1), shard(range(4, PROMPTS), seed=2)]


@pytest.fixture(scope="module")
def tables(shards):
    return compared_tables(shards, HEADS, **OPTIONS)


def column(shards, name: str, head: int) -> list[float]:
    return [float(v) for s in shards for v, h in zip(s[name], s["head"], strict=True) if h == head]


def losses(shards, head: int, ablation: str) -> list[float]:
    return [float(p[head][COMPARED.index(ablation)]) for s in shards for p in s["loss"]]


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def test_a_row_has_the_means_of_its_head_and_ablation(shards, tables):
    table, _ = tables
    assert table.select("layer", "head").unique(maintain_order=True).rows() == HEADS[:2]
    assert table["ablation"].to_list() == [*COMPARED] * 2
    for row in table.to_dicts():
        at, ablation = HEADS.index((row["layer"], row["head"])), row["ablation"]
        before = column(shards, "direct_effect", at)
        found = {n: column(shards, f"{ablation}.{n}", at) for n in MEANS[1:]}
        assert (row["n_tokens"], row["n_prompts"]) == (27, 9)
        for name, values in ({"direct_effect": before} | found).items():
            assert row[name] == pytest.approx(mean(values))
            assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]
        lost = [b - a for b, a in zip(before, found["ablated_direct_effect"], strict=True)]
        repaired = found["self_repair"]
        if ablation == RANDOM:
            assert row["restored_share"] is None
        else:
            assert row["restored_share"] == pytest.approx(sum(repaired) / sum(lost))
        slope = np.polyfit(lost, repaired, 1)[0]
        assert row["compensation"] == pytest.approx(slope)
        own, least = (mean(losses(shards, at, name)) for name in (ablation, OPTIMAL))
        assert row["loss"] == pytest.approx(own)
        assert row["loss_above_optimal"] == pytest.approx(own - least)
        assert row["spoofing"] == (
            None if ablation == RANDOM else pytest.approx((own - least) / own)
        )


def test_summaries_are_over_heads(shards, tables):
    table, summaries = tables
    found = {(row["quantity"], row["group"]): row for row in summaries.to_dicts()}
    assert set(summaries["experiment"]) == {"E17"}

    def over_heads(name: str, ablation: str) -> float:
        return mean(table.filter(ablation=ablation)[name])

    restored = {}
    for name in COMPARED:
        for quantity in ("self_repair", "compensation", "loss"):
            assert found[quantity, name]["value"] == pytest.approx(over_heads(quantity, name))
    for name in REMOVING:
        lost = over_heads("direct_effect", name) - over_heads("ablated_direct_effect", name)
        restored[name] = over_heads("self_repair", name) / lost
        assert found["restored_share", name]["value"] == pytest.approx(restored[name])
    for name in set(REMOVING) - {OPTIMAL}:
        share = 1 - over_heads("loss", OPTIMAL) / over_heads("loss", name)
        assert found["spoofing", name]["value"] == pytest.approx(share)
    ratio = restored[OPTIMAL] / restored["resample"]
    assert found["restored_ratio", RATIO]["value"] == pytest.approx(ratio)
    difference = over_heads("compensation", "resample") - over_heads("compensation", RANDOM)
    assert found["compensation_difference", DIFFERENCE]["value"] == pytest.approx(difference)
    assert found["loss", OPTIMAL]["n_tokens"] is None
    assert found["self_repair", OPTIMAL]["n_tokens"] == 2 * 27
    for row in found.values():
        assert row["low"] < row["value"] < row["high"]
        assert not math.isnan(row["low"])
    assert ("spoofing", RANDOM) not in found
    assert ("restored_share", RANDOM) not in found


def test_without_self_repair_there_is_no_ratio_of_restored_shares(shards):
    other = [
        s | {f"{name}.self_repair": -s[f"{name}.self_repair"] for name in COMPARED} for s in shards
    ]
    _, summaries = compared_tables(other, HEADS, **OPTIONS)
    (row,) = summaries.filter(quantity="restored_ratio").to_dicts()
    assert math.isnan(row["value"])


def test_without_heads_or_tokens_there_is_no_row(shards):
    for found in (
        compared_tables([no_comparison().arrays()], [], **OPTIONS),
        compared_tables(
            [{n: v[:0] if n != "loss" else v for n, v in s.items()} for s in shards],
            HEADS,
            **OPTIONS,
        ),
    ):
        for table, empty in zip(found, no_compared_tables(), strict=True):
            assert table.equals(empty)
            assert table.schema == empty.schema


def test_columns_are_documented():
    assert documented_columns("compared_ablations") == set(TABLE_SCHEMA)
