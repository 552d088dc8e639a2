"""From where to where axes reach, and what becomes of values beyond."""

from __future__ import annotations

import re

import altair as alt
import numpy as np
import polars as pl
import pytest
import vl_convert

from selfrepair.figures.axes import (
    Span,
    axis_limits,
    fitted,
    interval_limits,
    layer_axis,
    n_beyond,
    n_cut,
    placed,
    share_axis,
    side_by_side,
)

X, Y = Span("x", "X", (-1.0, 2.0)), Span("y", "Y", (0.0, 10.0))


def series(*values: float | None) -> pl.Series:
    return pl.Series(values, dtype=pl.Float64)


def test_an_axis_shows_every_ordinary_value_and_zero() -> None:
    values = pl.Series(np.random.default_rng(0).normal(5, 1, 500))
    low, high = axis_limits(values)
    assert low < 0
    assert high > values.max()  # type: ignore[operator]


@pytest.mark.parametrize("far", [-90.0, 90.0])
def test_a_value_that_would_stretch_an_axis_beyond_use_lies_beyond_it(far: float) -> None:
    values = pl.Series([*np.random.default_rng(0).normal(0, 1, 500), far])
    low, high = axis_limits(values)
    assert -10 < low < high < 10
    low, high = axis_limits(values, include=[far])
    assert low < far < high


def test_missing_values_do_not_move_an_axis_and_a_constant_has_one() -> None:
    assert axis_limits(series(1.0, None, 2.0, float("nan"))) == axis_limits(series(1.0, 2.0))
    assert axis_limits(series(0.0)) == (-0.5, 0.5)
    assert axis_limits(series(None)) == (-0.5, 0.5)


def test_a_long_interval_does_not_stretch_the_axis_of_ordinary_values() -> None:
    rows = pl.DataFrame(
        {"v": [1.0] * 9 + [2.0], "v_low": [0.5] * 10, "v_high": [2.5] * 9 + [500.0]}
    )
    low, high = interval_limits(rows, "v")
    assert 2.5 < high < 10
    assert low < 0


def test_an_axis_is_clamped_so_that_values_beyond_stand_at_its_edge() -> None:
    channel = Span("share", "Share (%)", (-1.0, 1.0), percent=True, options={"tickCount": 8}).y(
        "low"
    )
    spec = channel.to_dict()
    assert spec["scale"] == {"domain": [-1.0, 1.0], "nice": False, "zero": False, "clamp": True}
    assert spec["axis"] == {"format": ".0%", "tickCount": 8}
    assert spec["title"] == "Share (%)"


@pytest.mark.parametrize(
    ("x", "y", "edge"),
    [
        (0.0, 5.0, "within"),
        (2.0, 0.0, "within"),
        (2.1, 5.0, "right"),
        (-1.1, 5.0, "left"),
        (0.0, 10.1, "above"),
        (0.0, -0.1, "below"),
        (9.0, 99.0, "above"),
    ],
)
def test_a_point_beyond_an_axis_is_told_apart_and_counted(x: float, y: float, edge: str) -> None:
    points = placed(pl.DataFrame({"x": [x], "y": [y]}), x=X, y=Y)
    assert points["edge"].to_list() == [edge]
    assert n_beyond(points) == (edge != "within")


def test_intervals_that_the_axis_cuts_are_counted() -> None:
    rows = {
        "y": [5.0, 5.0, 5.0, 99.0],
        "y_low": [4.0, -1.0, 4.0, 98.0],
        "y_high": [6.0, 6.0, 11, 99],
    }
    points = placed(pl.DataFrame(rows, strict=False), y=Y)
    assert n_cut(points, Y) == 2


def test_heads_stand_in_order_within_their_layer() -> None:
    heads = pl.DataFrame(
        [{"layer": layer, "head": head} for layer in range(3) for head in range(4)]
    )
    places = heads.with_columns(side_by_side(4))
    assert places["place"].is_sorted()
    assert ((places["place"] - places["layer"]).abs() < 0.5).all()


@pytest.mark.parametrize("layers", [1, 12, 80])
def test_an_axis_of_layers_has_whole_numbers(layers: int) -> None:
    axis = layer_axis(layers)
    assert axis.limits == (-0.5, layers - 0.5)
    chart = alt.Chart(pl.DataFrame({"place": [0]}), width=600).mark_point().encode(axis.x())
    svg = vl_convert.vegalite_to_svg(chart.to_dict())
    labels = [int(label) for label in re.findall(r">(\d+)</text>", svg)]
    assert labels[0] == 0
    assert labels == sorted(set(labels))
    assert 1 <= len(labels) <= 21


def test_a_fitted_axis_shows_the_intervals_that_are_drawn() -> None:
    rows = pl.DataFrame({"y": [0.0, 1.0], "y_low": [-0.5, 0.9], "y_high": [0.1, 1.4]})
    low, high = fitted(rows, "y", "Y").limits
    assert low < -0.5 < 1.4 < high
    low, high = fitted(rows, "y", "Y", bars=False).limits
    assert -0.5 < low < 0 < 1 < high < 1.4


def test_an_axis_of_shares_ends_at_120_percent() -> None:
    rows = pl.DataFrame(
        {"y": [-40.0, 0.3, 9.0], "y_low": [-50.0, 0.2, 8.0], "y_high": [0.0, 0.4, 10.0]}
    )
    axis = share_axis(rows, "y", "Y", keep=0.95)
    assert axis.limits == (-1.2, 1.2)
    assert axis.y().to_dict()["axis"]["format"] == ".0%"
