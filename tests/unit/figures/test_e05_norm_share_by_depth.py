"""E5 is tested on its spec: what is drawn, where, under which title."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from figure_specs import drawn, headings, subtitle
from figure_tables import change, heads_table, two_models
from selfrepair.errors import InputError
from selfrepair.figures.e05_norm_share_by_depth import HIGHEST, LOWEST, caption, draw

RATIO, CLIPPED = "ratio of sums", "paper: mean of clipped shares"


def lines_of(table: pl.DataFrame, name: str, selection: str = "top") -> list[dict[str, Any]]:
    (curves,) = drawn(draw(table).to_dict(), "line", "share")
    assert curves["transform"] == [{"filter": "isValid(datum.line)"}]
    rows = [row for row in curves["rows"] if row["line"] == name]
    return [row for row in rows if row["panel"] == f"{row['model']}: {selection} tokens"]


def heads_drawn(spec: dict[str, Any]) -> list[dict[str, Any]]:
    (points,) = drawn(spec, "point", "share")
    assert points["transform"] == [{"filter": "!isValid(datum.line)"}]
    return [row for row in points["rows"] if row["line"] is None]


@pytest.mark.parametrize("selection", ["top", "all"])
def test_solid_lines_are_ratios_of_sums_over_heads_with_positive_effect(selection: str) -> None:
    table = two_models()
    rows = lines_of(table, RATIO, selection)
    assert len(rows) == 4 + 3
    for row in rows:
        norm = effect = 0.0
        same = table.filter(
            model=row["model"], layer=row["layer"], ablation="resample", selection=selection
        )
        for head in same.to_dicts():
            if head["direct_effect"] > 0:
                norm += head["from_norm"]
                effect += head["direct_effect"]
        assert row["share"] == (pytest.approx(norm / effect) if effect else None)


def test_sums_are_over_tokens() -> None:
    table = change(heads_table(layers=1, heads=2), 0, 0, from_norm=0.5, direct_effect=1.0)
    table = change(table, 0, 1, from_norm=0.0, direct_effect=3.0)
    table = table.with_columns(n_tokens=pl.when(pl.col("head") == 0).then(300).otherwise(100))
    (row,) = lines_of(table, RATIO)
    assert row["share"] == pytest.approx(0.5 * 300 / (300 + 3 * 100))


def test_dashed_lines_are_the_papers_means_of_clipped_shares() -> None:
    table = two_models()
    want = table.filter(ablation="resample", selection="top")
    for row in lines_of(table, CLIPPED):
        same = want.filter(model=row["model"], layer=row["layer"])["from_norm_share_clipped"]
        assert row["share"] == pytest.approx(same.mean())
    (curves,) = drawn(draw(table).to_dict(), "line", "share")
    dash = curves["encoding"]["strokeDash"]["scale"]
    assert dash["domain"] == [RATIO, CLIPPED]
    assert dash["range"][0] == [1, 0] != dash["range"][1]


def test_a_layer_without_positive_effect_has_no_share() -> None:
    table = change(heads_table(layers=2, heads=1), 0, 0, direct_effect=-0.01)
    for selection in ("top", "all"):
        assert lines_of(table, RATIO, selection)[0]["share"] is None


def test_every_head_is_drawn_and_those_beyond_the_axis_are_counted() -> None:
    table = change(heads_table(layers=6, heads=4), 1, 2, from_norm_share=1e4, direct_effect=1e-5)
    table = change(table, 2, 2, from_norm_share=0.2, direct_effect=-1e-5)
    spec = draw(table).to_dict()
    (points,) = drawn(spec, "point", "share")
    low, high = points["encoding"]["y"]["scale"]["domain"]
    assert LOWEST <= low < 0.3 < high <= HIGHEST
    assert points["encoding"]["y"]["scale"]["clamp"] is True
    beyond = {"top": 0, "all": 0}
    rows = heads_drawn(spec)
    assert len(rows) == 48
    for row in rows:
        share = row["share"]
        beyond[row["selection"]] += not low <= share <= high
        inside = "direct effect ≤ 0" if row["direct_effect"] <= 0 else "within"
        assert row["edge"] == ("above" if share > high else "below" if share < low else inside)
    assert min(beyond.values()) >= 1
    for selection, count in beyond.items():
        assert f"{count} of 24 heads on {selection} tokens" in subtitle(spec)
    shape = points["encoding"]["shape"]["scale"]
    assert dict(zip(shape["domain"], shape["range"], strict=True))["direct effect ≤ 0"] == "cross"


def test_lines_beyond_the_axis_are_counted() -> None:
    table = change(heads_table(layers=2, heads=1), 0, 0, from_norm=50.0, direct_effect=1.0)
    spec = draw(change(table, 1, 0, from_norm=0.1, direct_effect=1.0)).to_dict()
    assert "Lines beyond the axis, drawn along its edge: 2 of their 8 points" in subtitle(spec)


def test_the_papers_share_is_marked_and_axes_have_units() -> None:
    spec = draw(two_models()).to_dict()
    (rule,) = (part for part in drawn(spec, "rule", "y") if part["rows"] == [{"y": 0.3}])
    assert rule["mark"]["strokeDash"]
    assert "Dotted: the 30 % of the paper" in subtitle(spec)
    (points,) = drawn(spec, "point", "share")
    assert points["encoding"]["x"]["title"] == "Relative depth (layer / last layer)"
    assert points["encoding"]["y"]["title"] == "from_norm / direct effect (%)"
    assert points["encoding"]["y"]["axis"]["format"] == ".0%"


def test_a_sweep_of_one_selection_is_one_panel() -> None:
    table = heads_table("a")
    assert headings(draw(table).to_dict()) == ["a: top tokens", "a: all tokens"]
    assert "all tokens" in caption(table)
    top = table.filter(selection="top")
    spec = draw(top).to_dict()
    assert headings(spec) == ["a: top tokens"]
    assert "all tokens" not in subtitle(spec)
    assert "all tokens" not in caption(top)
    every = table.filter(selection="all")
    assert headings(draw(every).to_dict()) == ["a: all tokens"]
    assert "on top tokens" not in caption(every)


def test_several_models_have_a_line_of_panels_each() -> None:
    spec = draw(two_models()).to_dict()
    panels = [f"{model}: {name} tokens" for model in ("a", "b") for name in ("top", "all")]
    assert headings(spec) == panels
    assert spec["columns"] == 2
    (points,) = drawn(spec, "point", "share")
    assert points["encoding"]["color"]["legend"] is None
    for row in points["rows"]:
        assert row["panel"].startswith(f"{row['model']}: ")
    top = draw(two_models().filter(selection="top")).to_dict()
    assert headings(top) == panels[::2]
    assert top["columns"] == 1


def test_the_caption_counts_the_heads_left_out_of_the_sums() -> None:
    table = heads_table()
    negative = (table.filter(ablation="resample", selection="all")["direct_effect"] <= 0).sum()
    assert 0 < negative < 12
    text = caption(table)
    for words in (
        f"0 of 12 on top tokens and {negative} of 12 on all tokens",
        "61,700 tokens",
        "30 %",
    ):
        assert words in text


def test_a_table_without_its_rows_is_refused() -> None:
    for function in (draw, caption):
        with pytest.raises(InputError, match=r"^E5: .* no column from_norm_share_clipped;"):
            function(heads_table().drop("from_norm_share_clipped"))
        with pytest.raises(InputError, match=r"^E5: .* ablation resample.*; run "):
            function(heads_table().filter(ablation="zero"))
