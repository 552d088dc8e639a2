"""E8: the curve from 0, its first percent, and the colours of its points."""

from __future__ import annotations

import polars as pl
import pytest

import chosen_tables as made
from figure_specs import drawn, headings, layers_of, subtitle
from selfrepair.figures import e08_cumulative_change as e08


def test_the_curve_runs_from_zero_over_the_share_of_neurons() -> None:
    spec = e08.draw(made.neuron_curve()).to_dict()
    (line,), (dots,) = (
        drawn(spec, "line", "cumulative_share"),
        drawn(spec, "point", "cumulative_share"),
    )
    rows = pl.DataFrame(line["rows"]).filter(panel=headings(spec)[0]).sort("neurons")
    assert rows["neurons"].to_list() == [0, 0.005, 0.015, 0.05, 0.25, 0.6, 1]
    assert rows["cumulative_share"][0] == 0
    assert rows["cumulative_share"][3] == pytest.approx(0.05**0.5)
    # Points are groups of neurons; at 0 there is none.
    assert dots["transform"] == [{"filter": "datum.rank_end > 0"}]
    assert dots["encoding"]["x"]["title"] == "Neurons, most repairing first (%)"
    assert dots["encoding"]["y"]["title"] == "Share of the absolute change (%)"
    low, middle, high = dots["encoding"]["color"]["scale"]["domain"]
    assert -low == high > 0 == middle
    assert len(set(dots["encoding"]["color"]["scale"]["range"])) == 3


def test_the_first_percent_of_the_neurons_is_marked_and_read_off() -> None:
    spec = e08.draw(made.neuron_curve()).to_dict()
    (rule,) = (part for part in layers_of(spec) if part["mark"]["type"] == "rule")
    assert rule["rows"] == [{"x": 0.01}]
    # Halfway between 1 and 3 of 200 neurons.
    half = (0.005**0.5 + 0.015**0.5) / 2
    assert headings(spec)[0] == (
        f"Layer 2, head 1\n200 neurons; first 1 %: {100 * half:.0f} % of the change"
    )
    few = e08.draw(made.neuron_curve(160).with_columns(n_neurons=pl.lit(90))).to_dict()
    assert headings(few)[0] == "Layer 2, head 1\n90 neurons"


def test_points_that_the_colours_cannot_show_are_counted() -> None:
    table = made.change_first(made.neuron_curve(), median_direct_effect=-90.0)
    assert "in its last colour: 1 points" in subtitle(e08.draw(table).to_dict())
    assert "last colour" not in subtitle(e08.draw(made.neuron_curve()).to_dict())
    table = made.change_first(made.neuron_curve(), median_direct_effect=None)
    assert "without a value for their colour: 1" in subtitle(e08.draw(table).to_dict())
