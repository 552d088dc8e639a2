"""Marks and panels that several figures share."""

from __future__ import annotations

import altair as alt
import numpy as np
import polars as pl
import pytest

from figure_specs import drawn, layers_of
from selfrepair.figures import marks
from selfrepair.figures.axes import Span, placed
from selfrepair.figures.marks import (
    CELLS,
    MOST_POINTS,
    cloud,
    cloud_rows,
    estimates,
    facets,
    inks,
    joined,
    layer_colour,
    line_through_zero,
    model_colour,
    points,
    rule,
    signed_colour,
    whiskers,
)

X, Y = Span("x", "X", (-1.0, 2.0)), Span("y", "Y", (-4.0, 1.0))


def crowded(count: int, *panels: str) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    rows = [
        pl.DataFrame(
            {"x": draw.normal(0, 0.7, count), "y": draw.normal(-1, 1, count), "panel": panel}
        )
        for panel in panels
    ]
    return placed(pl.concat(rows), x=X, y=Y)


def test_a_rule_is_drawn_once_whatever_the_rows() -> None:
    chart = alt.layer(rule(y=0.5), points(crowded(9, "a")), data=crowded(9, "a"))
    (line,) = (part for part in layers_of(chart.to_dict()) if part["mark"]["type"] == "rule")
    assert line["rows"] == [{"y": 0.5}]


@pytest.mark.parametrize(
    ("slope", "positive", "ends"),
    [
        (-1.0, False, [(-1, 1), (2, -2)]),
        (-4.0, False, [(-0.25, 1), (1, -4)]),
        (1.0, False, [(-1, -1), (1, 1)]),
        (-0.5, True, [(0, 0), (2, -1)]),
        (0.0, True, [(0, 0), (2, 0)]),
    ],
)
def test_a_line_through_zero_ends_at_the_axes(
    slope: float, positive: bool, ends: list[tuple[float, float]]
) -> None:
    (line,) = layers_of(line_through_zero(slope, X, Y, positive=positive).to_dict())
    assert [(row["x"], row["y"]) for row in line["rows"]] == ends


def test_points_beyond_an_axis_are_triangles_that_point_outwards() -> None:
    shape = points(crowded(9, "a")).to_dict()["encoding"]["shape"]["scale"]
    shapes = dict(zip(shape["domain"], shape["range"], strict=True))
    assert shapes["within"] == "circle"
    assert {edge: words for edge, words in shapes.items() if edge != "within"} == {
        "above": "triangle-up",
        "below": "triangle-down",
        "left": "triangle-left",
        "right": "triangle-right",
    }


def test_a_whisker_is_drawn_only_where_both_ends_are_known() -> None:
    spec = whiskers(Span("v", "V", (0.0, 1.0))).to_dict()
    assert spec["encoding"]["y"]["field"] == "v_low"
    assert spec["encoding"]["y2"]["field"] == "v_high"
    assert spec["transform"] == [{"filter": "isValid(datum.v_low) && isValid(datum.v_high)"}]


def test_estimates_and_joined_points_have_their_intervals_at_the_same_place() -> None:
    span = Span("v", "V", (0.0, 1.0))
    rows = placed(pl.DataFrame({"v": [0.5, 7.0], "k": ["a", "b"]}), y=span)
    place = {
        "x": alt.X("k:N"),
        "color": inks("k", "K", {"a": "red", "b": "blue"}),
        "tooltip": ["k"],
    }
    for layers in (
        estimates(rows, span, **place),
        joined(rows, span, where="datum.v > 0", **place),
    ):
        spec = alt.layer(*layers, data=rows).to_dict()
        (dots,), (bars,) = drawn(spec, "point", "v"), drawn(spec, "rule", "v_low")
        assert dots["encoding"]["x"] == bars["encoding"]["x"]
        assert dots["encoding"]["color"] == bars["encoding"]["color"]
        assert dots["encoding"]["color"]["scale"] == {
            "domain": ["a", "b"],
            "range": ["red", "blue"],
        }
    # No line leads along the edge.
    (line,) = drawn(spec, "line", "v")
    assert line["transform"] == [{"filter": "datum.edge == 'within' && datum.v > 0"}]
    assert len(estimates(rows, span, bars=False, **place)) == 1
    assert len(joined(rows, span, bars=False, **place)) == 2


def test_panels_keep_the_order_of_their_headings() -> None:
    rows = crowded(3, "z", "b", "a")
    spec = facets([points(rows)], rows, size=(100, 80)).to_dict()
    assert spec["facet"]["sort"] == ["z", "b", "a"]
    assert spec["columns"] == 3
    assert (spec["spec"]["width"], spec["spec"]["height"]) == (100, 80)
    (part,) = layers_of(spec)
    assert len(part["rows"]) == 9


def test_few_points_are_drawn_singly() -> None:
    rows = crowded(MOST_POINTS, "a", "b")
    assert cloud_rows(rows, X, Y, "panel").equals(rows)
    (dots,) = cloud(rows, X, Y, "panel")
    assert dots.to_dict()["mark"]["type"] == "point"


def test_a_density_loses_no_point() -> None:
    rows = crowded(MOST_POINTS + 1, "a", "b")
    table = cloud_rows(rows, X, Y, "panel")
    beyond = rows.filter(pl.col("edge") != "within")
    cells = table.drop_nulls("count")
    assert 0 < beyond.height < 2000
    assert table.filter(pl.col("count").is_null()).select("x", "y").equals(beyond.select("x", "y"))
    assert cells["count"].sum() + beyond.height == rows.height
    for panel in ("a", "b"):
        want, _, _ = np.histogram2d(
            *(rows.filter(panel=panel, edge="within")[name].to_numpy() for name in ("x", "y")),
            bins=CELLS,
            range=(X.limits, Y.limits),
        )
        got = np.zeros((CELLS, CELLS))
        for cell in cells.filter(panel=panel).to_dicts():
            column = round((cell["x_start"] - X.limits[0]) / (X.limits[1] - X.limits[0]) * CELLS)
            row = round((cell["y_start"] - Y.limits[0]) / (Y.limits[1] - Y.limits[0]) * CELLS)
            got[column, row] = cell["count"]
        # A point on the very edge of a cell may round into its neighbour.
        assert np.abs(got - want).sum() <= 4
    spec = alt.layer(*cloud(table, X, Y, "panel"), data=table).to_dict()
    assert len(drawn(spec, "rect", "y_start")) == len(drawn(spec, "point", "y")) == 1


def test_colours_are_the_themes_until_there_are_more_models() -> None:
    few = model_colour(["b", "a"]).to_dict()
    assert few["scale"]["domain"] == ["b", "a"]
    many = model_colour([str(n) for n in range(9)]).to_dict()
    assert many["scale"]["scheme"] == "tableau20"
    assert layer_colour(1).to_dict()["scale"]["domain"] == [0, 1]


def test_a_signed_colour_is_symmetrical_and_counts_what_it_cannot_show() -> None:
    values = pl.Series([*np.random.default_rng(0).normal(0, 1, 200), 80.0, None])
    colour, unseen = signed_colour("v", "V", values, things="cells")
    low, middle, high = colour.to_dict()["scale"]["domain"]
    assert (low, middle) == (-high, 0)
    assert high < 20
    assert unseen == [
        "Beyond the colours' scale, in its last colour: 1 cells",
        "Cells without a value for their colour: 1",
    ]
    assert signed_colour("v", "V", pl.Series([0.1, 0.2]))[1] == []


def test_a_crowd_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pl.DataFrame({"panel": ["a"] * 5 + ["b"] * 2})
    assert not marks.crowded(rows)
    assert marks.density_note(rows) == []
    monkeypatch.setattr(marks, "MOST_POINTS", 5)
    assert marks.crowded(rows)
    assert not marks.crowded(rows, "panel")
    assert marks.density_note(rows) == ["More than 5 points in a panel: drawn as a density"]
