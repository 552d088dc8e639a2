"""E11a: every head, kind of vector and scaling; layer means; what is beyond the axis."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

import chosen_tables as made
from figure_specs import drawn, headings, subtitle
from selfrepair.errors import InputError
from selfrepair.figures import e11a_self_repression as e11a


def test_each_scaling_has_a_panel_with_every_head_and_kind() -> None:
    table = made.self_repression()
    spec = e11a.draw(table).to_dict()
    assert headings(spec) == ["1 × the vector", "3 × the vector", "5 × the vector"]
    (points,) = drawn(spec, "point", "slope")
    keys = ["scaling", "layer", "head", "kind", "slope"]
    got = pl.DataFrame(points["rows"])
    assert got.select(keys).sort(keys).equals(table.select(keys).sort(keys))
    assert (got["panel"] == [f"{scaling:g} × the vector" for scaling in got["scaling"]]).all()
    assert ((got["place"] - got["layer"]).abs() < 0.5).all()
    assert points["encoding"]["y"]["title"] == "Slope, new / old effect"
    assert points["encoding"]["x"]["scale"]["domain"] == [2.5, 5.5]
    names = ["its own output", "a random direction", "another head's output"]
    assert points["encoding"]["color"]["scale"]["domain"] == names
    (unchanged,) = drawn(spec, "rule", "y")
    assert unchanged["rows"] == [{"y": 1}]


def test_lines_join_layer_means() -> None:
    table = made.self_repression()
    (line,) = drawn(e11a.draw(table).to_dict(), "line", "mean_slope")
    assert line["encoding"]["x"]["field"] == "layer"
    for row in line["rows"]:
        same = table.filter(scaling=row["scaling"], kind=row["kind"], layer=row["layer"])
        assert row["mean_slope"] == pytest.approx(np.mean(same["slope"].to_list()))


def test_what_is_beyond_the_axis_or_missing_is_counted() -> None:
    table = made.change_first(made.self_repression(20, 4), slope=-70.0)
    eighth = pl.int_range(pl.len()) == 7
    table = table.with_columns(slope=pl.when(eighth).then(float("nan")).otherwise("slope"))
    spec = e11a.draw(table).to_dict()
    json.dumps(spec, allow_nan=False)
    (points,) = drawn(spec, "point", "slope")
    beyond = [row for row in points["rows"] if row["edge"] == "below"]
    assert [(row["layer"], row["head"], row["slope"]) for row in beyond] == [(10, 0, -70.0)]
    assert "1 of 359 points" in subtitle(spec)
    assert "without a finite value, not drawn: 1" in subtitle(spec)


def test_intervals_are_drawn_where_there_are_few_heads() -> None:
    few = e11a.draw(made.self_repression(20, 4)).to_dict()
    (bars,) = drawn(few, "rule", "slope_low")
    assert bars["encoding"]["y2"]["field"] == "slope_high"
    assert "bar: 95 % interval" in subtitle(few)
    many = e11a.draw(made.self_repression(30, 10)).to_dict()
    assert drawn(many, "rule", "slope_low") == []
    assert "bar: 95 %" not in subtitle(many)


def test_vectors_of_an_unknown_kind_are_no_rows_of_it() -> None:
    table = made.self_repression().with_columns(kind=pl.lit("noise"))
    with pytest.raises(InputError, match=r"^E11a: .*no rows with kind own/random/other and finite"):
        e11a.draw(table)
