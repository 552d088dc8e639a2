"""E11b: every pair of heads, y = x, and the correlation of each pair of layers."""

from __future__ import annotations

import polars as pl
import pytest

import chosen_tables as made
from figure_specs import drawn, layers_of, subtitle
from selfrepair.figures import e11b_refeeding_against_ablation as e11b
from selfrepair.figures import marks


def test_every_pair_of_heads_is_drawn_with_y_equals_x() -> None:
    table = made.refeeding()
    spec = e11b.draw(table, made.correlations()).to_dict()
    (points,) = drawn(spec, "point", "ablation_change")
    assert pl.DataFrame(points["rows"]).select(table.columns).equals(table)
    assert points["encoding"]["color"]["field"] == "layer"
    for axis in ("x", "y"):
        assert "(logits)" in points["encoding"][axis]["title"]
    (line,) = drawn(spec, "line", "y")
    assert all(row["x"] == row["y"] for row in line["rows"])
    ends = [points["encoding"][axis]["scale"]["domain"] for axis in ("x", "y")]
    assert line["rows"][0]["x"] == pytest.approx(max(end[0] for end in ends))
    assert line["rows"][1]["x"] == pytest.approx(min(end[1] for end in ends))
    assert "0.52 [0.47, 0.58]" in subtitle(spec)


def test_each_pair_of_layers_has_its_correlation_with_an_interval() -> None:
    spec = e11b.draw(made.refeeding(), made.correlations(0.4, None, 0.6)).to_dict()
    (points,) = drawn(spec, "point", "correlation")
    rows = [(row["layer"], row["correlation"]) for row in points["rows"]]
    assert rows == [(0, 0.4), (2, 0.6)]
    assert points["encoding"]["y"]["title"] == "Correlation (no unit)"
    (bars,) = drawn(spec, "rule", "correlation_low")
    assert bars["encoding"]["y2"]["field"] == "correlation_high"
    assert "without a correlation, not drawn: 1" in subtitle(spec)
    levels = [row["y"] for part in drawn(spec, "rule", "y") for row in part["rows"]]
    assert 0.52 in levels


def test_without_pairs_of_layers_there_is_one_panel() -> None:
    pooled = made.correlations().filter(pl.col("layer").is_null())
    spec = e11b.draw(made.refeeding(), pooled).to_dict()
    assert len(spec["hconcat"]) == 1
    assert "on the right" not in e11b.caption(made.refeeding(), pooled)


def test_density_counts_every_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "MOST_POINTS", 100)
    table = made.change_first(made.refeeding(8, 6), refeed_change=80.0)
    spec = e11b.draw(table, made.correlations()).to_dict()
    (cells,) = (part for part in layers_of(spec) if "fill" in part["encoding"])
    rows = pl.DataFrame(cells["rows"], infer_schema_length=None)
    assert rows["count"].sum() == 7 * 36 - 1
    beyond = rows.filter(pl.col("count").is_null())
    assert beyond.select("edge", "refeed_change").rows() == [("right", 80.0)]
    assert "drawn as a density" in subtitle(spec)
    assert "The darker a cell" in e11b.caption(table, made.correlations())


def test_a_correlation_over_all_layers_that_is_not_there_is_said_to_be_missing() -> None:
    tables = made.refeeding(), made.correlations().drop_nulls("layer")
    spec = e11b.draw(*tables).to_dict()
    for text in (subtitle(spec), e11b.caption(*tables)):
        assert "not estimated" in text
    assert 0.52 not in [row["y"] for part in drawn(spec, "rule", "y") for row in part["rows"]]
