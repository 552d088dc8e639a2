"""The table by depth: means over the heads of a group of layers, and ratios of such means."""

import numpy as np
import polars as pl
import pytest

from selfrepair.tables.bootstrap import tail
from selfrepair.tables.depth import DepthMeans
from selfrepair.vocabulary import EFFECTS, LAST_BUT_ONE, QUARTERS, SECOND_HALF, SHARED_EFFECTS


def test_groups_of_layers_and_their_sizes(tables, sweep):
    _, depth = tables
    n_layers, n_heads = sweep["direct_effect"].shape[2:]
    assert n_layers == 5
    assert set(depth["depth"]) == {*QUARTERS, SECOND_HALF, LAST_BUT_ONE}
    sizes = depth.filter(ablation="zero", selection="all")
    assert sizes.filter(pl.col("depth").is_in(QUARTERS))["n_heads"].sum() == n_layers * n_heads
    assert sizes.filter(depth=SECOND_HALF)["n_heads"].item() == 3 * n_heads  # layers 2 to 4
    assert sizes.filter(depth=LAST_BUT_ONE)["n_heads"].item() == n_heads


def test_depth_is_the_mean_over_heads_and_its_share_a_ratio_of_means(tables):
    heads, depth = tables
    first = heads.filter(ablation="resample", selection="all", layer=0)
    row = depth.filter(ablation="resample", selection="all", depth="first quarter").row(
        0, named=True
    )
    layers = [i for i in range(5) if i * 4 // 5 == 0]
    first = heads.filter(pl.col("layer").is_in(layers), ablation="resample", selection="all")
    assert row["self_repair"] == pytest.approx(first["self_repair"].mean())
    expected = first["from_norm"].mean() / first["direct_effect"].mean()
    assert row["from_norm_share"] == pytest.approx(expected)
    assert row["self_repair_low"] <= row["self_repair"] <= row["self_repair_high"]


def test_the_spread_of_a_group_of_heads_is_that_within_heads(tables):
    heads, depth = tables
    members = heads.filter(pl.col("layer") >= 2, ablation="resample", selection="top")
    row = depth.filter(ablation="resample", selection="top", depth=SECOND_HALF).row(0, named=True)
    pooled = np.sqrt((members["self_repair_sd"] ** 2).mean())
    assert row["self_repair_sd"] == pytest.approx(pooled)
    assert row["self_repair_sd_low"] <= pooled <= row["self_repair_sd_high"]


def test_tokens_of_several_heads_are_counted_once(tables):
    _, depth = tables
    rows = depth.filter(ablation="resample", selection="all")
    assert set(rows["n_tokens"]) == {6 * 25}
    assert set(rows["n_prompts"]) == {6}
    top = depth.filter(ablation="resample", selection="top", depth=LAST_BUT_ONE).row(0, named=True)
    assert 3 <= top["n_tokens"] <= 2 * 3  # two heads with three tokens each


def test_a_head_without_a_value_in_a_resample_leaves_the_others_theirs():
    names = {*EFFECTS, "self_repair_variance", "over_corrected_share"}
    names |= {f"{name}_share_clipped" for name in SHARED_EFFECTS}
    values = np.array([[1.0, 3.0], [1.0, np.nan], [np.nan, np.nan], [5.0, 3.0]])
    means = DepthMeans(1)
    means.add(0, dict.fromkeys(names, values))
    tokens = np.full((6, 2), 5)
    tokens[:2, 1] = 0
    row, other = means.rows({"model": "m"}, tokens).iter_rows(named=True)
    assert row["model"] == "m"
    assert (row["n_tokens"], row["n_prompts"]) == (30, 6)
    assert row["self_repair"] == 2.0
    # Of the resamples one has no value, the others have 1 and 4; percentiles as six prompts need them.
    assert row["self_repair_low"] == pytest.approx(1 + tail(6) * 3)
    assert row["self_repair_high"] == pytest.approx(1 + (1 - tail(6)) * 3)
    assert (other["n_tokens"], other["n_prompts"]) == (20, 4)
    assert other["self_repair_low"] == pytest.approx(1 + tail(4) * 3)
    assert set(means.rows({}, tokens, n_prompts=9)["n_prompts"]) == {9}
