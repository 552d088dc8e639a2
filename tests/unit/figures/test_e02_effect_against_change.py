"""E2 is tested on its spec: what is drawn, where, under which title."""

from __future__ import annotations

import json

import polars as pl
import pytest

import chosen_tables as made
from figure_specs import drawn, headings, layers_of, subtitle
from figure_tables import change, heads_table, two_models
from selfrepair.ablations import ABLATIONS, Ablation
from selfrepair.errors import InputError
from selfrepair.figures.e02_effect_against_change import caption, draw


def test_a_panel_per_ablation_in_the_order_of_the_registry() -> None:
    table = heads_table(ablations=("zero", "resample", "mean"))
    spec = draw(table).to_dict()
    assert headings(spec) == ["Resample ablation", "Mean ablation", "Zero ablation"]
    (points,) = drawn(spec, "point", "delta_logit")
    assert points["facet"]["field"] == "panel"
    got = pl.DataFrame(points["rows"])
    for ablation in ("resample", "mean", "zero"):
        want = table.filter(ablation=ablation, selection="top")
        panel = got.filter(panel=f"{ablation.capitalize()} ablation")
        for name in ("direct_effect", "delta_logit"):
            assert panel[name].to_list() == want[name].to_list()
    assert points["encoding"]["x"]["title"] == "Direct effect (logits)"
    assert points["encoding"]["y"]["title"] == "Change of the logit when ablated (logits)"
    assert points["encoding"]["color"]["field"] == "layer"


def test_a_new_ablation_has_a_panel_and_its_name_in_the_caption(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    toy = Ablation("toy", "toy ablation", lambda given: given.value_bias)
    monkeypatch.setitem(ABLATIONS, "toy", toy)
    table = heads_table(ablations=("toy", "mean"))
    assert headings(draw(table).to_dict()) == ["Mean ablation", "Toy ablation"]
    assert "under mean and toy ablation" in caption(table)


def test_optimal_ablation_of_chosen_heads_is_one_more_panel() -> None:
    table, compared = heads_table(ablations=("resample",)), made.compared_ablations()
    spec = draw(table, compared).to_dict()
    assert headings(spec) == ["Resample ablation", "Optimal ablation, chosen heads"]
    (points,) = drawn(spec, "point", "delta_logit")
    got = pl.DataFrame(points["rows"]).filter(panel="Optimal ablation, chosen heads")
    want = compared.filter(ablation="optimal")
    for name in ("layer", "head", "direct_effect", "delta_logit"):
        assert got[name].to_list() == want[name].to_list()
    assert "resample and optimal ablation" in caption(table, compared)
    assert draw(table, compared.clear()).to_dict() == draw(table).to_dict()
    with pytest.raises(InputError, match="compared_ablations table has no column delta_logit_low"):
        draw(table, compared.drop("delta_logit_low"))


def test_ablations_that_the_table_lacks_have_no_panel() -> None:
    table = heads_table(ablations=("zero",))
    assert headings(draw(table).to_dict()) == ["Zero ablation"]
    assert "under zero ablation" in caption(table)


def test_the_line_of_no_repair_goes_from_axis_to_axis() -> None:
    spec = draw(heads_table()).to_dict()
    (line,) = drawn(spec, "line", "y")
    (points,) = drawn(spec, "point", "delta_logit")
    (x_low, x_high), (y_low, y_high) = (
        points["encoding"][axis]["scale"]["domain"] for axis in ("x", "y")
    )
    start, stop = line["rows"]
    assert (start["y"], stop["y"]) == (-start["x"], -stop["x"])
    assert start["x"] == max(x_low, -y_high) < 0
    assert stop["x"] == min(x_high, -y_low) > 0
    assert "dashed: y = −x, no self-repair" in subtitle(spec)


def test_bars_are_the_intervals_unless_they_would_hide_the_points() -> None:
    table = heads_table(ablations=("mean",))
    spec = draw(table).to_dict()
    (bars,) = drawn(spec, "rule", "delta_logit_low")
    want = table.filter(selection="top")["delta_logit_low"]
    assert [row["delta_logit_low"] for row in bars["rows"]] == want.to_list()
    assert bars["encoding"]["y2"]["field"] == "delta_logit_high"
    assert "bar: 95 % interval" in subtitle(spec)
    assert "bars are 95 % bootstrap intervals" in caption(table)
    large = heads_table(layers=21, heads=20, ablations=("mean",))
    spec = draw(large).to_dict()
    assert drawn(spec, "rule", "delta_logit_low") == []
    assert "bar" not in subtitle(spec)
    assert "bars" not in caption(large)


def test_a_missing_bound_is_null_and_keeps_its_point() -> None:
    spec = draw(change(heads_table(), 2, 1, delta_logit_low=float("nan"))).to_dict()
    json.dumps(spec, allow_nan=False)
    (points,) = drawn(spec, "point", "delta_logit")
    assert len(points["rows"]) == 36
    assert sum(row["delta_logit_low"] is None for row in points["rows"]) == 3


def test_bars_that_the_axis_cuts_are_counted() -> None:
    table = heads_table(layers=20, heads=10, ablations=("mean",))
    spec = draw(change(table, 0, 0, delta_logit_high=500.0)).to_dict()
    (bars,) = drawn(spec, "rule", "delta_logit_low")
    assert bars["encoding"]["y"]["scale"]["domain"][1] < 100
    assert bars["encoding"]["y"]["scale"]["clamp"] is True
    assert "Interval bars cut at the axis: 1" in subtitle(spec)


@pytest.mark.parametrize(
    ("column", "value", "edge"),
    [
        ("direct_effect", 90.0, "right"),
        ("direct_effect", -90.0, "left"),
        ("delta_logit", 90.0, "above"),
        ("delta_logit", -90.0, "below"),
    ],
)
def test_outliers_point_outwards(column: str, value: float, edge: str) -> None:
    table = heads_table(layers=20, heads=10, ablations=("mean", "zero"))
    spec = draw(change(table, 3, 3, **{column: value})).to_dict()
    (points,) = drawn(spec, "point", "delta_logit")
    outliers = [row for row in points["rows"] if row["edge"] != "within"]
    assert [(row["edge"], row[column]) for row in outliers] == [(edge, value)] * 2
    assert "2 of 400 points" in subtitle(spec)


def test_one_zero_line_per_panel_and_not_one_per_head() -> None:
    zero = [part for part in layers_of(draw(heads_table()).to_dict()) if part["rows"] == [{"y": 0}]]
    assert len(zero) == 1


def test_what_it_cannot_draw_is_refused() -> None:
    for function in (draw, caption):
        with pytest.raises(InputError, match=r"^E2: takes one model, got a and b"):
            function(two_models())
        with pytest.raises(InputError, match=r"^E2: .* resample/mean/zero, selection top .*; run "):
            function(heads_table().filter(selection="all"))
        with pytest.raises(InputError, match=r"^E2: .* no column delta_logit_high;"):
            function(heads_table().drop("delta_logit_high"))
