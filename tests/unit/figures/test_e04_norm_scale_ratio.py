"""E4: bins that part at 1 and hold every token; a row per ablation of the registry."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

import chosen_tables as made
from figure_specs import drawn, layers_of, subtitle
from selfrepair.ablations import ABLATIONS, Ablation
from selfrepair.figures import e04_norm_scale_ratio as e04


def bars_of(spec: dict[str, Any]) -> pl.DataFrame:
    (bars,) = drawn(spec, "bar", "share")
    return pl.DataFrame(bars["rows"])


def test_rows_are_ablations_and_columns_heads() -> None:
    spec = e04.draw(made.scale_ratios(), made.above_shares()).to_dict()
    facet = spec["facet"]
    assert facet["row"]["sort"] == ["Resample ablation", "Mean ablation", "Zero ablation"]
    assert facet["column"]["sort"] == ["Layer 2, head 1", "Layer 3, head 0", "Layer 3, head 2"]
    assert bars_of(spec).select("row", "column").unique().height == 9
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
    assert spec["facet"]["row"]["sort"][2:] == ["Zero ablation", "Ablation by a toy"]
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


def test_each_panel_prints_its_share_once() -> None:
    spec = e04.draw(made.scale_ratios(), made.above_shares()).to_dict()
    (text,) = (part for part in layers_of(spec) if part["mark"]["type"] == "text")
    assert text["transform"][0]["groupby"] == ["words"]
    assert {row["words"] for row in text["rows"]} == {"above 1: 80 %\n[75, 86]"}
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
