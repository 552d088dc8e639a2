"""E7: a line per threshold, in order of rank."""

from __future__ import annotations

import polars as pl

import chosen_tables as made
from figure_specs import drawn, headings, subtitle
from selfrepair.figures import e07_most_repairing_neurons as e07

LEVELS = ["50 %", "10 %", "5 %", "2.5 %", "1 %"]


def test_each_threshold_has_a_line_and_a_band_in_order_of_rank() -> None:
    table = made.neuron_ranks()
    spec = e07.draw(table).to_dict()
    assert headings(spec) == ["Layer 2, head 1", "Layer 3, head 0", "Layer 3, head 2"]
    (line,), (band,) = drawn(spec, "line", "share"), drawn(spec, "area", "share_low")
    got = pl.DataFrame(line["rows"])
    for heading, (layer, head) in zip(headings(spec), made.HEADS, strict=True):
        for threshold, level in zip(made.THRESHOLDS, LEVELS, strict=True):
            want = table.filter(layer=layer, head=head, threshold=threshold).sort("rank")
            drawn_line = got.filter(panel=heading, level=level)
            assert drawn_line["rank"].to_list() == list(range(1, 21))
            assert drawn_line["share"].equals(want["share"])
    assert line["encoding"]["color"]["sort"] == LEVELS
    assert line["encoding"]["y"]["axis"]["format"] == ".0%"
    assert line["encoding"]["y"]["title"] == "Share of instances (%)"
    assert band["encoding"]["y2"]["field"] == "share_high"
    # One legend for both: a band without it would also remove that of the lines.
    assert band["encoding"]["color"] == line["encoding"]["color"]


def test_each_mlp_has_a_panel_where_there_are_several() -> None:
    spec = e07.draw(made.neuron_ranks((2, 3))).to_dict()
    names = ["Layer 2, head 1; MLP of layer 2", "Layer 2, head 1; MLP of layer 3"]
    assert headings(spec)[:2] == names
    assert len(headings(spec)) == 6
    assert "the MLPs of layers 2 and 3" in subtitle(spec)


def test_a_share_without_an_interval_has_no_band() -> None:
    table = made.neuron_ranks().with_columns(low=pl.lit(float("nan")))
    (band,) = drawn(e07.draw(table).to_dict(), "area", "share_low")
    assert {row["share_low"] for row in band["rows"]} == {None}
    assert band["transform"] == [
        {"filter": "isValid(datum.share_low) && isValid(datum.share_high)"}
    ]
