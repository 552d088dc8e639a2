"""E9: each instance on axes of one scale, the names of the regions, their shares."""

from __future__ import annotations

import polars as pl
import pytest

import chosen_tables as made
from figure_specs import drawn, headings, layers_of, subtitle
from selfrepair.figures import e09_effect_of_the_top_neuron as e09
from selfrepair.figures import marks
from selfrepair.vocabulary import NEURON_REGIONS


def test_each_instance_is_drawn_on_axes_of_one_scale() -> None:
    table = made.top_neurons()
    spec = e09.draw(table, made.erasure_shares()).to_dict()
    (dots,) = drawn(spec, "point", "ablated_direct_effect")
    assert pl.DataFrame(dots["rows"]).select(table.columns).equals(table)
    encoding = dots["encoding"]
    limits = encoding["x"]["scale"]["domain"]
    assert limits == encoding["y"]["scale"]["domain"]
    assert encoding["x"]["title"] == "Neuron's direct effect, clean (logits)"
    assert encoding["color"]["field"] == "mlp_direct_effect"
    low, middle, high = encoding["color"]["scale"]["domain"]
    assert -low == high > 0 == middle
    (line,) = drawn(spec, "line", "y")
    assert [(row["x"], row["y"]) for row in line["rows"]] == [(end, end) for end in limits]


def test_panels_say_anti_erasure_and_each_regions_share() -> None:
    table = made.top_neurons()
    spec = e09.draw(table, made.erasure_shares()).to_dict()
    heading = headings(spec)[1].split("\n")
    assert heading[:2] == ["Layer 3, head 0", "anti-erasure: 70 % [65, 76] of 40 instances"]
    for name in NEURON_REGIONS:
        share = (table.filter(layer=3, head=0)["region"] == name).mean()
        assert f"{name} {100 * share:.0f} %" in " ".join(heading)
    assert "anti-erasure: 90 % [85, 96] of 40" in headings(spec)[2]


def test_the_subtitle_says_where_each_region_lies() -> None:
    lines = subtitle(e09.draw(made.top_neurons(), made.erasure_shares()).to_dict())
    below, above, reversed_, right = (
        made.neuron_region(*point) for point in ((-1, -2), (-1, -0.5), (-1, 1), (1, 0))
    )
    assert f"{below} below the dashed line, {above} above it, {reversed_} above zero;" in lines
    assert f"right of zero: {right}\n" in f"{lines}\n"


def test_each_mlp_has_a_panel_and_a_share() -> None:
    table, shares = made.top_neurons(), made.erasure_shares()
    both = pl.concat([table, table.with_columns(mlp_layer=pl.lit(2, dtype=pl.Int64))])
    lower = made.erasure_shares("MLP 2").with_columns(value=pl.col("value") - 0.5)
    spec = e09.draw(both, pl.concat([shares, lower])).to_dict()
    first, second = (heading.split("\n") for heading in headings(spec)[:2])
    assert first[0] == "Layer 2, head 1; MLP of layer 2"
    assert second[0] == "Layer 2, head 1; MLP of layer 3"
    assert first[1].startswith("anti-erasure: 30 %")
    assert second[1].startswith("anti-erasure: 80 %")
    assert "40 tokens per head" in subtitle(spec)
    single = e09.draw(table, made.erasure_shares("")).to_dict()
    assert "anti-erasure: 80 %" in headings(single)[0]


def test_density_counts_every_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "MOST_POINTS", 100)
    table = made.change_first(made.top_neurons(300), ablated_direct_effect=500.0)
    spec = e09.draw(table, made.erasure_shares()).to_dict()
    (cells,) = (part for part in layers_of(spec) if part["mark"]["type"] == "rect")
    rows = pl.DataFrame(cells["rows"], infer_schema_length=None)
    counts = rows.group_by("panel").agg(pl.col("count").sum()).sort("panel")["count"]
    assert counts.to_list() == [299, 300, 300]
    beyond = rows.filter(pl.col("count").is_null())
    assert beyond.select("edge", "ablated_direct_effect").rows() == [("above", 500.0)]
    # The colours' scale is that of the points which have one.
    (dots,) = drawn(spec, "point", "ablated_direct_effect")
    reach = abs(beyond["mlp_direct_effect"][0])
    assert reach < dots["encoding"]["color"]["scale"]["domain"][2] < 1.2 * reach
    assert "1 of 900 points" in subtitle(spec)
    assert "The darker a cell" in e09.caption(table, made.erasure_shares())
