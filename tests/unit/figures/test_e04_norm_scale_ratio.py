"""E4: bins that part at 1 and hold every token; a row per ablation of the registry."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

import chosen_tables as made
from figure_specs import drawn, headings, layers_of, subtitle
from selfrepair.ablations import ABLATIONS, Ablation
from selfrepair.figures import e04_norm_scale_ratio as e04


def bars_of(spec: dict[str, Any]) -> pl.DataFrame:
    (bars,) = drawn(spec, "bar", "share")
    return pl.DataFrame(bars["rows"])


def test_rows_are_ablations_and_columns_heads() -> None:
    spec = e04.draw(made.scale_ratios(), made.above_shares()).to_dict()
    assert spec["columns"] == 3
    assert [heading.split("\n")[0] for heading in headings(spec)] == [
        f"{head}, {ablation} ablation"
        for ablation in ("resample", "mean", "zero")
        for head in ("L2H1", "L3H0", "L3H2")
    ]
    (bars,) = drawn(spec, "bar", "share")
    assert bars["encoding"]["x"]["title"] == "S / S' (ratio)"
    assert bars["encoding"]["y"]["title"] == "Tokens (%)"


def test_an_ablation_that_is_added_to_the_registry_has_a_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = made.scale_ratios()
    toy = table.filter(ablation="mean").with_columns(ablation=pl.lit("toy"))
    table = pl.concat([toy, table])
    monkeypatch.setitem(ABLATIONS, "toy", Ablation("toy", "ablation by a toy", lambda given: 0))
    spec = e04.draw(table, made.above_shares()).to_dict()
    assert [heading.split("\n")[0] for heading in headings(spec)[-4::3]] == [
        "L3H2, zero ablation",
        "L3H2, ablation by a toy",
    ]
    assert "zero not estimated, toy not estimated" in subtitle(spec)
    assert "resample, mean, zero and toy ablation" in e04.caption(table, made.above_shares())


def test_bins_hold_every_token_and_part_at_one() -> None:
    table = made.scale_ratios()
    sixth = pl.int_range(pl.len()) == 5
    table = table.with_columns(ratio=pl.when(sixth).then(1.0).otherwise("ratio"))
    spec = e04.draw(table, made.above_shares()).to_dict()
    bars = bars_of(spec)
    for keys, panel in bars.group_by("ablation", "layer", "head"):
        ablation, layer, head = keys
        ratios = table.filter(ablation=ablation, layer=layer, head=head)["ratio"]
        assert panel["count"].sum() == 40
        assert panel["share"].sum() == pytest.approx(1)
        for row in panel.to_dicts():
            inside = (ratios > row["start"]) & (ratios <= row["stop"])
            assert inside.sum() == row["count"]
            assert row["stop"] <= 1 or row["start"] >= 1
    (rule,) = (part for part in layers_of(spec) if part["mark"]["type"] == "rule")
    assert [row["x"] for row in rule["rows"]] == [1]


def test_the_heading_of_each_panel_has_its_share() -> None:
    spec = e04.draw(made.scale_ratios(), made.above_shares()).to_dict()
    assert {heading.split("\n")[1] for heading in headings(spec)} == {"above 1: 80 % [75, 86]"}
    assert "resample not estimated, mean 60 % [55, 66], zero not estimated" in subtitle(spec)
    spec = e04.draw(made.scale_ratios(), made.above_shares(pooled=False)).to_dict()
    assert "over all" not in subtitle(spec)


def test_tokens_beyond_the_axis_are_in_the_outermost_bars_and_counted() -> None:
    table = made.change_first(made.scale_ratios(), ratio=30.0)
    spec = e04.draw(table, made.above_shares()).to_dict()
    (bars,) = drawn(spec, "bar", "share")
    rows = bars_of(spec)
    low, high = bars["encoding"]["x"]["scale"]["domain"]
    assert high < 2
    assert rows["count"].sum() == 360
    assert rows["start"].min() >= low
    assert rows.filter(pl.col("stop") >= high - 1e-9)["count"].sum() == 1
    assert "in the outermost bars: 1 of 360 tokens" in subtitle(spec)
    spec = e04.draw(made.scale_ratios(), made.above_shares()).to_dict()
    assert "outermost" not in subtitle(spec)
