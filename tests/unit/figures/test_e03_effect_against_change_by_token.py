"""E3: each token once, in its head's panel; the regions' lines and shares."""

from __future__ import annotations

from functools import cache
from typing import Any

import polars as pl
import pytest

import chosen_tables as made
from figure_specs import drawn, headings, layers_of, subtitle
from selfrepair.figures import e03_effect_against_change_by_token as e03
from selfrepair.figures import marks
from selfrepair.vocabulary import TOKEN_REGIONS


def spec_of(tokens: pl.DataFrame, shares: pl.DataFrame | None = None) -> dict[str, Any]:
    return e03.draw(tokens, made.region_shares() if shares is None else shares).to_dict()


@cache
def plain() -> dict[str, Any]:
    """Of the made up tables, drawn once for all tests."""
    return spec_of(made.tokens())


def words(spec: dict[str, Any]) -> dict[tuple[str, str], str]:
    """The words at each panel and region."""
    (text,) = (part for part in layers_of(spec) if part["mark"]["type"] == "text")
    return {(row["panel"], row["region"]): row["words"] for row in text["rows"]}


def test_each_token_is_drawn_once_in_its_heads_panel() -> None:
    table, spec = made.tokens(), plain()
    names = ["Layer 2, head 1", "Layer 3, head 0", "Layer 3, head 2"]
    points, shares = spec["vconcat"]
    assert headings(points) == [f"{name}\n40 top tokens" for name in names]
    assert headings(shares) == names
    assert points["columns"] == shares["columns"] == 3
    (dots,) = drawn(spec, "point", "delta_logit")
    got = pl.DataFrame(dots["rows"])
    assert got.select(table.columns).equals(table)
    assert dots["encoding"]["x"]["title"] == "Direct effect (logits)"
    assert " ".join(dots["encoding"]["y"]["title"]) == "Change of the logit when ablated (logits)"
    for heading, (layer, head) in zip(headings(points), made.HEADS, strict=True):
        assert got.filter(panel=heading).select("layer", "head").unique().row(0) == (layer, head)


def test_points_and_bars_of_a_region_have_one_colour() -> None:
    spec = plain()
    (dots,) = drawn(spec, "point", "delta_logit")
    (bars,) = (part for part in layers_of(spec) if part["mark"]["type"] == "bar")
    colour = dots["encoding"]["color"]
    assert colour == bars["encoding"]["color"]
    assert colour["field"] == "region"
    assert tuple(colour["scale"]["domain"]) == TOKEN_REGIONS


def test_lines_part_the_regions() -> None:
    spec = plain()
    (dots,) = drawn(spec, "point", "delta_logit")
    x_high, y_low = (dots["encoding"][a]["scale"]["domain"][end] for a, end in (("x", 1), ("y", 0)))
    lines = [part["rows"] for part in drawn(spec, "line", "y")]
    assert [rows[1]["y"] / rows[1]["x"] for rows in lines] == pytest.approx([-1, -0.5, 0])
    for start, stop in lines:
        assert start == {"x": 0.0, "y": 0.0}
        assert stop["x"] == pytest.approx(x_high) or stop["y"] == pytest.approx(y_low)
        # A token just above the line is in another region than one just below it.
        slope = stop["y"] / stop["x"]
        assert made.token_region(1, slope + 1e-6) != made.token_region(1, slope - 1e-6)


def test_each_regions_shares_stand_below_its_head_with_their_interval() -> None:
    spec = plain()
    printed = words(spec)
    assert len(printed) == 3 * 4
    assert printed["Layer 3, head 0", "over-correction"] == "45 % [40, 51]\nall: 10 % [5, 16]"
    assert printed["Layer 2, head 1", "breakage"] == "10 % [5, 16]\nall: 45 % [40, 51]"
    (bars,) = (part for part in layers_of(spec) if part["mark"]["type"] == "bar")
    assert bars["encoding"]["y"]["sort"] == list(TOKEN_REGIONS[::-1])
    row = next(row for row in bars["rows"] if row["region"] == "repair")
    assert [row[name] for name in ("value", "all")] == [0.25, 0.2]
    assert [row[name] for name in ("value_low", "value_high")] == pytest.approx([0.2, 0.31])
    (rule,) = (
        part
        for part in layers_of(spec)
        if part["encoding"].get("x2", {}).get("field") == "value_high"
    )
    assert rule["encoding"]["x"]["field"] == "value_low"


def test_a_share_that_is_not_estimated_is_said() -> None:
    shares = made.region_shares().filter(pl.col("group") != "top/repair")
    assert words(spec_of(made.tokens(), shares))["Layer 3, head 2", "repair"] == (
        "not estimated\nall: 20 % [15, 26]"
    )
    shares = made.region_shares().with_columns(low=pl.lit(float("nan")))
    assert words(spec_of(made.tokens(), shares))["Layer 3, head 2", "repair"] == "25 %\nall: 20 %"


def test_density_counts_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "MOST_POINTS", 100)
    table = made.change_first(made.tokens(500), delta_logit=-400.0)
    spec = spec_of(table)
    (cells,) = (part for part in layers_of(spec) if part["mark"]["type"] == "rect")
    rows = pl.DataFrame(cells["rows"], infer_schema_length=None)
    counts = rows.group_by("panel").agg(pl.col("count").sum()).sort("panel")["count"]
    assert counts.to_list() == [499, 500, 500]
    beyond = rows.filter(pl.col("count").is_null())
    assert beyond.select("edge", "delta_logit").rows() == [("below", -400.0)]
    assert cells["encoding"]["fill"]["scale"]["type"] == "log"
    assert "drawn as a density" in subtitle(spec)
    assert "1 of 1,500 points" in subtitle(spec)
    assert "The darker a cell" in e03.caption(table, made.region_shares())


def test_tokens_without_a_line_are_counted() -> None:
    table = made.change_first(made.tokens(), direct_effect=-0.5)
    assert "to which no line applies: 1" in subtitle(spec_of(table))
    assert "no line applies" not in subtitle(plain())


def test_the_circles_say_how_many_tokens_they_are_of() -> None:
    table, shares = made.tokens(), made.region_shares()
    of_all = pl.col("group").str.starts_with("all/")
    shares = shares.with_columns(n_tokens=pl.when(of_all).then(200).otherwise("n_tokens"))
    for text in (subtitle(spec_of(table, shares)), e03.caption(table, shares)):
        assert "of 200 tokens drawn at random from all" in text
    none = shares.with_columns(value=pl.when(of_all).then(None).otherwise("value"))
    for text in (subtitle(spec_of(table, none)), e03.caption(table, none)):
        assert "circle" not in text
    assert words(spec_of(table, none))["Layer 3, head 0", "repair"].endswith("all: not estimated")
