"""Figures are tested on their spec: what is drawn, where, under which title."""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import polars as pl
import pytest
from selfrepair.figures.gallery import FIGURES

from selfrepair.errors import InputError
from selfrepair.figures import plotting
from selfrepair.figures import whole_models as figures

EFFECTS = ("direct_effect", "ablated_direct_effect", "from_heads", "from_mlps", "from_norm")
PARTS = ("self_repair", "from_heads", "from_mlps", "from_norm")
# Those drawn from the heads table.
HEADS_FIGURES = ("E1", "E2", "E5", "E6")


def heads_table(
    model: str = "toy",
    *,
    layers: int = 4,
    heads: int = 3,
    ablations: tuple[str, ...] = ("resample", "mean", "zero"),
    seed: int = 0,
) -> pl.DataFrame:
    """A heads table with the identities of the method: shares, self_repair and delta_logit add up.

    Direct effects are positive on top tokens and of either sign on all tokens.
    """
    draw = np.random.default_rng(seed)
    rows = []
    for ablation in ablations:
        for selection in ("top", "all"):
            for layer in range(layers):
                for head in range(heads):
                    effect = draw.uniform(0.5, 2) if selection == "top" else draw.normal(0, 0.05)
                    row = {"direct_effect": effect, "ablated_direct_effect": 0.1 * effect}
                    row |= {name: draw.normal(0.1, 0.1) for name in PARTS[1:]}
                    row["self_repair"] = sum(row[name] for name in PARTS[1:])
                    row["delta_logit"] = row["self_repair"] - 0.9 * effect
                    row |= {f"{name}_share": row[name] / effect for name in PARTS}
                    row["restored_share"] = row["self_repair"] / (0.9 * effect)
                    row |= {f"{name}_low": value - 0.02 for name, value in row.items()}
                    row |= {
                        f"{name.removesuffix('_low')}_high": value + 0.04
                        for name, value in row.items()
                        if name.endswith("_low")
                    }
                    row |= {f"{name}_share_clipped": draw.uniform(0, 0.5) for name in PARTS}
                    keys = {"model": model, "ablation": ablation, "selection": selection}
                    keys |= {"layer": layer, "head": head, "n_prompts": 321}
                    rows.append(keys | {"n_tokens": 1234 if selection == "top" else 61700} | row)
    return pl.DataFrame(rows)


def change(table: pl.DataFrame, layer: int, head: int, **values: float) -> pl.DataFrame:
    """The table with a head's values replaced, in all of its rows."""
    here = (pl.col("layer") == layer) & (pl.col("head") == head)
    return table.with_columns(
        pl.when(here).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
        for name, value in values.items()
    )


def layers_of(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All unit charts of a spec, depth first, with their data in place."""
    for key in ("concat", "hconcat", "vconcat", "layer"):
        for part in spec.get(key, []):
            inherited = {name: spec[name] for name in ("data", "datasets") if name in spec}
            yield from layers_of(inherited | part)
    if "mark" in spec:
        data = spec["data"]
        yield spec | {
            "rows": data["values"] if "values" in data else spec["datasets"][data["name"]]
        }


def drawn(spec: dict[str, Any], mark: str, y: str) -> list[dict[str, Any]]:
    """The unit charts with this mark whose y is this field."""
    return [
        part
        for part in layers_of(spec)
        if part["mark"]["type"] == mark and part["encoding"].get("y", {}).get("field") == y
    ]


def subtitle(spec: dict[str, Any]) -> str:
    return "\n".join(spec["title"]["subtitle"])


TWO = pl.concat([heads_table("a"), heads_table("b", layers=3, heads=2, seed=1)])


# E1


def test_e1_draws_each_head_once_and_names_its_units() -> None:
    spec = figures.self_repair_by_depth(TWO).to_dict()
    (points,) = drawn(spec, "point", "self_repair_drawn")
    want = TWO.filter(pl.col("ablation") == "resample", pl.col("selection") == "top")
    got = pl.DataFrame(points["rows"])
    assert got.height == 4 * 3 + 3 * 2
    keys = ["model", "layer", "head"]
    assert got.select(*keys, "self_repair").equals(want.select(*keys, "self_repair"))
    assert got["self_repair_drawn"].equals(got["self_repair"], check_names=False)
    assert points["encoding"]["x"]["title"] == "Relative depth (layer / last layer)"
    assert points["encoding"]["y"]["title"] == "Self-repair (logits)"
    assert points["encoding"]["color"]["scale"]["domain"] == ["a", "b"]
    tips = {tip["field"] for tip in points["encoding"]["tooltip"]}
    assert {"layer", "head", "self_repair", "self_repair_low", "self_repair_high"} <= tips


def test_e1_depth_is_relative_to_each_models_last_layer() -> None:
    (points,) = drawn(figures.self_repair_by_depth(TWO).to_dict(), "point", "self_repair_drawn")
    for row in points["rows"]:
        assert row["depth"] == row["layer"] / {"a": 3, "b": 2}[row["model"]]


def test_e1_of_a_single_layer_has_depth_zero() -> None:
    spec = figures.self_repair_by_depth(heads_table(layers=1, heads=2)).to_dict()
    (points,) = drawn(spec, "point", "self_repair_drawn")
    assert [row["depth"] for row in points["rows"]] == [0.0, 0.0]


def test_e1_lines_join_layer_means() -> None:
    (line,) = drawn(figures.self_repair_by_depth(TWO).to_dict(), "line", "self_repair")
    assert len(line["rows"]) == 4 + 3
    for row in line["rows"]:
        values = [
            value
            for model, ablation, selection, layer, value in TWO.select(
                "model", "ablation", "selection", "layer", "self_repair"
            ).iter_rows()
            if (model, ablation, selection) == (row["model"], "resample", "top")
            and layer == row["layer"]
        ]
        assert row["self_repair"] == pytest.approx(sum(values) / len(values), abs=1e-12)


@pytest.mark.parametrize("missing", [float("nan"), None, float("inf")])
def test_e1_leaves_out_heads_without_a_value_and_says_so(missing: float | None) -> None:
    table = change(heads_table(), 2, 1, self_repair=missing)
    spec = figures.self_repair_by_depth(table).to_dict()
    (points,) = drawn(spec, "point", "self_repair_drawn")
    assert len(points["rows"]) == 11
    assert (2, 1) not in {(row["layer"], row["head"]) for row in points["rows"]}
    assert "without a finite value, not drawn: 1" in subtitle(spec)
    assert "without a finite value" not in subtitle(
        figures.self_repair_by_depth(heads_table()).to_dict()
    )


def test_e1_keeps_the_depth_of_a_model_whose_last_layer_is_missing() -> None:
    table = heads_table()
    gone = pl.when(pl.col("layer") == 3).then(float("nan")).otherwise(pl.col("self_repair"))
    spec = figures.self_repair_by_depth(table.with_columns(self_repair=gone)).to_dict()
    (points,) = drawn(spec, "point", "self_repair_drawn")
    assert max(row["depth"] for row in points["rows"]) == pytest.approx(2 / 3)


def test_a_missing_interval_is_null_and_keeps_its_point() -> None:
    table = change(heads_table(), 2, 1, delta_logit_low=float("nan"))
    spec = figures.effect_against_change(table).to_dict()
    json.dumps(spec, allow_nan=False)
    points = drawn(spec, "point", "delta_logit_drawn")
    bars = drawn(spec, "rule", "delta_logit_low")
    assert [len(part["rows"]) for part in points] == [12, 12, 12]
    assert [len(part["rows"]) for part in bars] == [11, 11, 11]


def test_e1_turns_an_outlier_into_a_triangle_at_the_edge() -> None:
    table = heads_table(layers=20, heads=10, ablations=("resample",))
    spec = figures.self_repair_by_depth(change(table, 7, 3, self_repair=-90.0)).to_dict()
    (points,) = drawn(spec, "point", "self_repair_drawn")
    low, high = points["encoding"]["y"]["scale"]["domain"]
    (outlier,) = (row for row in points["rows"] if row["edge"] != "within the axes")
    assert (outlier["layer"], outlier["head"], outlier["self_repair"]) == (7, 3, -90.0)
    assert outlier["self_repair_drawn"] == low > -30
    assert outlier["edge"] == "below the axis"
    scale = points["encoding"]["shape"]["scale"]
    assert dict(zip(scale["domain"], scale["range"], strict=True)) == {
        "within the axes": "circle",
        "below the axis": "triangle-down",
    }
    assert "1 of 200 points" in subtitle(spec)
    (line,) = drawn(spec, "line", "self_repair")
    assert all(low <= row["self_repair"] <= high for row in line["rows"])


def test_e1_takes_more_rows_than_altair_allows_in_a_data_frame() -> None:
    many = pl.concat(
        heads_table(f"m{n}", layers=36, heads=20, ablations=("resample",)) for n in range(8)
    )
    (points,) = drawn(figures.self_repair_by_depth(many).to_dict(), "point", "self_repair_drawn")
    assert len(points["rows"]) == 8 * 36 * 20


# E2


def test_e2_draws_a_panel_per_ablation_in_order() -> None:
    table = heads_table(ablations=("zero", "resample", "mean"))
    spec = figures.effect_against_change(table).to_dict()
    titles = [panel["title"] for panel in spec["hconcat"]]
    assert titles == ["Resample ablation", "Mean ablation", "Zero ablation"]
    points = drawn(spec, "point", "delta_logit_drawn")
    for panel, ablation in zip(points, ("resample", "mean", "zero"), strict=True):
        want = table.filter(pl.col("ablation") == ablation, pl.col("selection") == "top")
        got = pl.DataFrame(panel["rows"])
        for name in ("direct_effect", "delta_logit"):
            assert got[name].to_list() == want[name].to_list()
            assert got[f"{name}_drawn"].to_list() == want[name].to_list()
        assert panel["encoding"]["x"]["title"] == "Direct effect (logits)"
        assert panel["encoding"]["color"]["field"] == "layer"
    assert points[0]["encoding"]["y"]["title"] == "Change of the logit when ablated (logits)"


def test_e2_leaves_out_ablations_that_the_table_lacks() -> None:
    spec = figures.effect_against_change(heads_table(ablations=("zero",))).to_dict()
    assert [panel["title"] for panel in spec["hconcat"]] == ["Zero ablation"]


def test_e2_line_is_y_equals_minus_x_from_axis_to_axis() -> None:
    spec = figures.effect_against_change(heads_table()).to_dict()
    lines = drawn(spec, "line", "y")
    assert len(lines) == 3
    (point, *_) = drawn(spec, "point", "delta_logit_drawn")
    (x_low, x_high), (y_low, y_high) = (
        point["encoding"][axis]["scale"]["domain"] for axis in ("x", "y")
    )
    for line in lines:
        start, stop = line["rows"]
        assert start["y"] == -start["x"]
        assert stop["y"] == -stop["x"]
        assert start["x"] == max(x_low, -y_high) < 0
        assert stop["x"] == min(x_high, -y_low) > 0
    texts = [part["mark"]["text"] for part in layers_of(spec) if part["mark"]["type"] == "text"]
    assert texts == ["y = −x: no self-repair"]


def test_e2_bars_are_the_intervals_unless_they_would_clutter() -> None:
    table = heads_table(ablations=("mean",))
    (bars,) = drawn(figures.effect_against_change(table).to_dict(), "rule", "delta_logit_low")
    want = table.filter(pl.col("selection") == "top")
    assert [row["delta_logit_low"] for row in bars["rows"]] == want["delta_logit_low"].to_list()
    assert bars["encoding"]["y2"]["field"] == "delta_logit_high"
    large = heads_table(layers=21, heads=20, ablations=("mean",))
    spec = figures.effect_against_change(large).to_dict()
    assert drawn(spec, "rule", "delta_logit_low") == []
    assert "bar" not in subtitle(spec)
    assert "bars" not in FIGURES["E2"].caption(large)
    assert "bars are 95 % bootstrap intervals" in FIGURES["E2"].caption(table)


def test_e2_counts_bars_that_the_axis_cuts() -> None:
    table = heads_table(layers=20, heads=10, ablations=("mean",))
    table = change(table, 0, 0, delta_logit_high=500.0)
    spec = figures.effect_against_change(table).to_dict()
    (bars,) = drawn(spec, "rule", "delta_logit_low")
    high = bars["encoding"]["y"]["scale"]["domain"][1]
    assert max(row["delta_logit_high"] for row in bars["rows"]) == high < 100
    assert "Interval bars cut at the axis: 1" in subtitle(spec)
    (points,) = drawn(spec, "point", "delta_logit_drawn")
    assert max(row["delta_logit_high"] for row in points["rows"]) == 500.0


@pytest.mark.parametrize(
    ("column", "value", "edge"),
    [
        ("direct_effect", 90.0, "right of the axis"),
        ("direct_effect", -90.0, "left of the axis"),
        ("delta_logit", 90.0, "above the axis"),
        ("delta_logit", -90.0, "below the axis"),
    ],
)
def test_e2_outliers_point_outwards(column: str, value: float, edge: str) -> None:
    table = heads_table(layers=20, heads=10, ablations=("mean", "zero"))
    spec = figures.effect_against_change(change(table, 3, 3, **{column: value})).to_dict()
    for points in drawn(spec, "point", "delta_logit_drawn"):
        (outlier,) = (row for row in points["rows"] if row["edge"] != "within the axes")
        assert (outlier["edge"], outlier[column]) == (edge, value)
        domain = points["encoding"]["x" if column == "direct_effect" else "y"]["scale"]["domain"]
        assert outlier[f"{column}_drawn"] in domain
    assert "2 of 400 points" in subtitle(spec)


# E5


def test_e5_solid_line_is_the_ratio_of_sums_over_heads_with_positive_effect() -> None:
    spec = figures.norm_share_by_depth(TWO).to_dict()
    lines = drawn(spec, "line", "share")
    assert [panel["title"] for panel in spec["hconcat"]] == list(figures.SELECTIONS.values())
    for line, selection in zip(lines, ("top", "all"), strict=True):
        solid = [row for row in line["rows"] if row["definition"] == "ratio of sums"]
        assert len(solid) == 4 + 3
        for row in solid:
            norm = effect = 0.0
            for head in TWO.iter_rows(named=True):
                same = all(head[key] == row[key] for key in ("model", "layer"))
                if same and (head["ablation"], head["selection"]) == ("resample", selection):
                    norm += max(head["direct_effect"], 0) and head["from_norm"]
                    effect += max(head["direct_effect"], 0)
            assert row["share"] == (pytest.approx(norm / effect) if effect else None)


def test_e5_sums_over_tokens() -> None:
    table = change(heads_table(layers=1, heads=2), 0, 0, from_norm=0.5, direct_effect=1.0)
    table = change(table, 0, 1, from_norm=0.0, direct_effect=3.0)
    table = table.with_columns(n_tokens=pl.when(pl.col("head") == 0).then(300).otherwise(100))
    (line, _) = drawn(figures.norm_share_by_depth(table).to_dict(), "line", "share")
    (solid,) = (row for row in line["rows"] if row["definition"] == "ratio of sums")
    assert solid["share"] == pytest.approx(0.5 * 300 / (300 + 3 * 100))


def test_e5_dashed_line_is_the_mean_of_clipped_shares() -> None:
    spec = figures.norm_share_by_depth(TWO).to_dict()
    (line, _) = drawn(spec, "line", "share")
    dash = line["encoding"]["strokeDash"]["scale"]
    assert dash["domain"] == ["ratio of sums", "paper: mean of clipped shares"]
    assert dash["range"][0] == [1, 0] != dash["range"][1]
    want = TWO.filter(pl.col("ablation") == "resample", pl.col("selection") == "top")
    for row in line["rows"]:
        if row["definition"] != "ratio of sums":
            same = want.filter(model=row["model"], layer=row["layer"])
            mean = np.mean(same["from_norm_share_clipped"].to_numpy())
            assert row["share"] == pytest.approx(mean)


def test_e5_a_layer_without_positive_effect_has_no_share() -> None:
    table = change(heads_table(layers=2, heads=1), 0, 0, direct_effect=-0.01)
    for line in drawn(figures.norm_share_by_depth(table).to_dict(), "line", "share"):
        solid = {
            row["layer"]: row["share"]
            for row in line["rows"]
            if row["definition"] == "ratio of sums"
        }
        assert solid[0] is None


def test_e5_keeps_every_head_and_counts_those_beyond_the_axis() -> None:
    table = change(heads_table(layers=6, heads=4), 1, 2, from_norm_share=1e4, direct_effect=1e-5)
    table = change(table, 2, 2, from_norm_share=0.2, direct_effect=-1e-5)
    spec = figures.norm_share_by_depth(table).to_dict()
    counts = []
    for points in drawn(spec, "point", "from_norm_share_drawn"):
        assert points["encoding"]["x"]["title"] == "Relative depth (layer / last layer)"
        low, high = points["encoding"]["y"]["scale"]["domain"]
        assert figures.SHARE_BOUNDS[0] <= low < 0.3 < high <= figures.SHARE_BOUNDS[1]
        assert len(points["rows"]) == 24
        beyond = 0
        for row in points["rows"]:
            share = row["from_norm_share"]
            assert row["from_norm_share_drawn"] == min(max(share, low), high)
            beyond += not low <= share <= high
            if share > high:
                assert row["edge"] == "above the axis"
            elif share < low:
                assert row["edge"] == "below the axis"
            else:
                negative = row["direct_effect"] <= 0
                assert row["edge"] == ("direct effect ≤ 0" if negative else "within the axes")
        counts.append(beyond)
    assert min(counts) >= 1
    assert f"{counts[0]} of 24 heads left, {counts[1]} of 24 right" in subtitle(spec)


def test_e5_says_how_often_the_lines_leave_the_axis() -> None:
    table = change(heads_table(layers=2, heads=1), 0, 0, from_norm=50.0, direct_effect=1.0)
    assert "leave the axis at 2 of their 8 points" in subtitle(
        figures.norm_share_by_depth(change(table, 1, 0, from_norm=0.1, direct_effect=1.0)).to_dict()
    )


def test_e5_marks_the_papers_share_and_writes_percent() -> None:
    spec = figures.norm_share_by_depth(TWO).to_dict()
    rules = [part for part in drawn(spec, "rule", "level") if part["rows"][0]["level"] == 0.3]
    assert len(rules) == 2
    texts = {part["mark"]["text"] for part in layers_of(spec) if part["mark"]["type"] == "text"}
    assert texts == {"paper: 30 %"}
    (points, _) = drawn(spec, "point", "from_norm_share_drawn")
    assert points["encoding"]["y"]["title"] == "from_norm / direct effect (%)"
    assert points["encoding"]["y"]["axis"]["format"] == ".0%"


# E6


def test_e6_draws_five_rows_with_all_heads_in_order() -> None:
    table = heads_table(layers=3, heads=4)
    spec = figures.breakdown_by_head(table).to_dict()
    assert len(spec["vconcat"]) == 5
    want = table.filter(pl.col("ablation") == "resample", pl.col("selection") == "top")
    for name in EFFECTS:
        (points,) = drawn(spec, "point", f"{name}_drawn")
        assert [row[f"{name}_drawn"] for row in points["rows"]] == want[name].to_list()
        assert "(logits)" in " ".join(points["encoding"]["y"]["axis"]["title"])
        places = [row["place_x"] for row in points["rows"]]
        assert places == sorted(places)
        assert all(abs(row["place_x"] - row["layer"]) < 0.5 for row in points["rows"])
        (means,) = (part for part in drawn(spec, "rule", name) if "x2" in part["encoding"])
        for row in means["rows"]:
            values = want.filter(layer=row["layer"])[name].to_numpy()
            assert row[name] == pytest.approx(values.mean())


def test_e6_shares_scales_within_effects_and_within_parts() -> None:
    spec = figures.breakdown_by_head(heads_table()).to_dict()
    domains = []
    for name in EFFECTS:
        (points,) = drawn(spec, "point", f"{name}_drawn")
        domains.append(points["encoding"]["y"]["scale"]["domain"])
    assert domains[0] == domains[1] != domains[2]
    assert domains[2] == domains[3] == domains[4]


def test_e6_names_the_largest_head_of_each_row() -> None:
    table = change(heads_table(), 1, 2, from_mlps=-3.0)
    spec = figures.breakdown_by_head(table).to_dict()
    words = [part["rows"][0]["word"] for part in layers_of(spec) if part["mark"]["type"] == "text"]
    assert len(words) == 5
    assert words[3] == "L1H2"


def test_e6_panels_agree_on_what_a_triangle_is() -> None:
    table = heads_table(layers=20, heads=10, ablations=("resample",))
    spec = figures.breakdown_by_head(change(table, 4, 4, from_norm=80.0)).to_dict()
    scales = [
        part["encoding"]["shape"]["scale"]
        for part in layers_of(spec)
        if part["mark"]["type"] == "point"
    ]
    assert len(scales) == 5
    assert all(scale == scales[0] for scale in scales)
    assert scales[0]["range"] == ["circle", "triangle-up"]
    assert "1 of 1,000 points" in subtitle(spec)


# All figures


@pytest.mark.parametrize("figure", HEADS_FIGURES)
def test_figures_are_pure_and_readable(figure: str) -> None:
    table = heads_table()
    before, options = table.clone(), alt.data_transformers.options.copy()
    spec = FIGURES[figure].draw(table).to_dict()
    assert table.equals(before)
    assert alt.data_transformers.options == options
    assert spec == FIGURES[figure].draw(table).to_dict()
    json.dumps(spec, allow_nan=False)
    assert spec["background"] == "white"
    sizes = [int(size) for size in re.findall(r'"\w*[fF]ontSize": (\d+)', json.dumps(spec))]
    assert len(sizes) >= 6
    assert min(sizes) >= 11


@pytest.mark.parametrize("figure", HEADS_FIGURES)
def test_the_smallest_model_can_be_drawn(figure: str) -> None:
    table = heads_table(layers=1, heads=1)
    assert FIGURES[figure].draw(table).to_dict()["title"]["text"]
    assert ("of 1 heads" if figure == "E5" else "(1 in all)") in FIGURES[figure].caption(table)


@pytest.mark.parametrize("figure", HEADS_FIGURES)
def test_captions_take_their_numbers_from_the_table(figure: str) -> None:
    text = FIGURES[figure].caption(heads_table("my-model"))
    for words in ("my-model", "resample", "1,234 tokens", "321 prompts", "ablat", "direct effect"):
        assert words in text
    assert 2 <= len(re.findall(r"\.(?: |$)", text)) <= 4


def test_captions_name_all_models_ablations_and_ranges() -> None:
    fewer = heads_table("b", heads=2).with_columns(n_tokens=pl.lit(200), n_prompts=pl.lit(10))
    both = pl.concat([heads_table("a"), fewer], how="vertical_relaxed")
    text = FIGURES["E1"].caption(both)
    assert "attention heads of a and b (20 in all)" in text
    assert "200 to 1,234 tokens" in text
    assert "10 to 321 prompts" in text
    assert "resample, mean and zero ablation" in FIGURES["E2"].caption(heads_table())
    assert "61,700 tokens" in FIGURES["E5"].caption(heads_table())


def test_e5_caption_counts_the_heads_left_out_of_the_sums() -> None:
    table = heads_table()
    resample = table.filter(pl.col("ablation") == "resample", pl.col("selection") == "all")
    negative = (resample["direct_effect"] <= 0).sum()
    assert 0 < negative < 12
    text = FIGURES["E5"].caption(table)
    assert f"0 of 12 heads left, {negative} of 12 right" in text
    assert "30 %" in text


# Input that is refused


@pytest.mark.parametrize(
    ("figure", "column"),
    [
        ("E1", "self_repair"),
        ("E1", "self_repair_low"),
        ("E1", "model"),
        ("E2", "delta_logit_high"),
        ("E5", "from_norm_share_clipped"),
        ("E6", "from_mlps"),
    ],
)
def test_a_missing_column_is_named(figure: str, column: str) -> None:
    table = heads_table().drop(column)
    for call in (FIGURES[figure].draw, FIGURES[figure].caption):
        with pytest.raises(InputError, match=f"^{figure}: .*no column {column};[^\n]*$"):
            call(table)


@pytest.mark.parametrize("figure", ["E2", "E6"])
def test_figures_of_one_model_refuse_two(figure: str) -> None:
    with pytest.raises(InputError, match=f"^{figure}: takes one model, got a and b"):
        FIGURES[figure].draw(TWO)


@pytest.mark.parametrize(
    ("figure", "keep", "words"),
    [
        ("E1", pl.col("ablation") == "zero", "ablation resample, selection top"),
        ("E2", pl.col("selection") == "all", "ablation resample/mean/zero, selection top"),
        ("E5", pl.col("selection") == "all", "ablation resample, selection top"),
        ("E6", pl.col("ablation") != "resample", "ablation resample, selection top"),
        ("E1", pl.lit(False), "ablation resample, selection top"),
    ],
)
def test_missing_rows_are_named_with_a_remedy(figure: str, keep: pl.Expr, words: str) -> None:
    with pytest.raises(InputError, match=rf"^{figure}: no rows with {words}[^\n]*; run "):
        FIGURES[figure].draw(heads_table().filter(keep))


def test_the_norm_share_of_top_tokens_alone_is_one_panel() -> None:
    """A sweep of top tokens has no rows of all tokens: no second panel, no word of it."""
    both, top = (
        figures.norm_share_by_depth(table).to_dict()
        for table in (heads_table(), heads_table().filter(selection="top"))
    )
    assert len(both["hconcat"]) == 2
    assert len(top["hconcat"]) == 1
    caption = figures.caption_e5(heads_table().filter(selection="top"))
    assert "all tokens" not in caption
    assert "left" not in caption
    assert "all tokens" in figures.caption_e5(heads_table())


def test_a_table_of_nan_only_is_refused() -> None:
    table = heads_table().with_columns(self_repair=pl.lit(math.nan))
    with pytest.raises(InputError, match=r"^E1: no rows .* finite self_repair"):
        figures.self_repair_by_depth(table)


# E12


def depth_table(*models: str, seed: int = 0) -> pl.DataFrame:
    """Quarters of the layers and their second half; the parts' shares add up to self-repair's."""
    draw = np.random.default_rng(seed)
    rows = []
    for model in models:
        for ablation in ("zero", "resample"):
            for selection in ("top", "all"):
                for depth in (*figures.QUARTERS, "second half"):
                    row = {f"{name}_share": draw.uniform(-0.2, 0.4) for name in PARTS[1:]}
                    row["self_repair_share"] = sum(row.values())
                    row |= {f"{name}_low": value - 0.03 for name, value in row.items()} | {
                        f"{name}_high": value + 0.02 for name, value in row.items()
                    }
                    keys = {"model": model, "ablation": ablation, "selection": selection}
                    counts = {"n_heads": 9, "n_tokens": 2100, "n_prompts": 321}
                    rows.append(keys | {"depth": depth} | counts | row)
    return pl.DataFrame(rows)


def test_e12_draws_every_quarter_and_part_of_every_model_once() -> None:
    table = depth_table("a", "b", "c", "d")
    spec = figures.breakdown_across_models(table).to_dict()
    assert [panel["title"] for panel in spec["concat"]] == ["a", "b", "c", "d"]
    assert spec["columns"] == 3
    bars = drawn(spec, "bar", "share_drawn")
    totals = [part for part in drawn(spec, "point", "share_drawn")]
    whiskers = drawn(spec, "rule", "share_low")
    parts = dict(zip(("other heads", "MLPs", "final norm"), PARTS[1:], strict=True))
    for model, bar, total, whisker in zip("abcd", bars, totals, whiskers, strict=True):
        want = table.filter(
            pl.col("depth").is_in(figures.QUARTERS),
            model=model,
            ablation="resample",
            selection="top",
        )
        got = {(row["part"], row["depth"]): row for row in bar["rows"] + total["rows"]}
        assert len(bar["rows"]) == 12
        assert len(got) == len(whisker["rows"]) == 16
        for row in want.iter_rows(named=True):
            for part, name in (parts | {"all self-repair": "self_repair"}).items():
                mark = got[part, row["depth"]]
                assert mark["share_drawn"] == mark["share"] == row[f"{name}_share"]
                assert mark["share_low"] == row[f"{name}_share_low"]
    assert bars[0]["encoding"]["y"]["title"] == "Share of the direct effect (%)"
    assert bars[0]["encoding"]["y"]["axis"]["format"] == ".0%"
    assert bars[0]["encoding"]["x"]["scale"]["domain"] == ["first", "second", "third", "last"]
    assert {row["part"] for row in totals[0]["rows"]} == {"all self-repair"}


def test_e12_counts_what_is_missing_or_beyond_the_axis() -> None:
    table = depth_table("a", "b", "c")
    here = (pl.col("model") == "b") & (pl.col("depth") == "first quarter")
    table = table.with_columns(
        from_heads_share=pl.when(here).then(-80.0).otherwise("from_heads_share"),
        from_mlps_share=pl.when(here).then(float("nan")).otherwise("from_mlps_share"),
    )
    spec = figures.breakdown_across_models(table).to_dict()
    json.dumps(spec, allow_nan=False)
    assert "1 of 47 bars" in subtitle(spec)
    assert "without a finite value, not drawn: 1" in subtitle(spec)
    marks = [row for part in drawn(spec, "point", "share_drawn") for row in part["rows"]]
    (outlier,) = (row for row in marks if row["edge"] != "within the axes")
    assert (outlier["model"], outlier["share"]) == ("b", -80.0)
    assert -10 < outlier["share_drawn"] < 0


def test_e12_of_a_shallow_model_has_fewer_quarters() -> None:
    table = depth_table("tiny").filter(pl.col("depth").is_in(["third quarter", "first quarter"]))
    (bars,) = drawn(figures.breakdown_across_models(table).to_dict(), "bar", "share_drawn")
    assert bars["encoding"]["x"]["scale"]["domain"] == ["first", "third"]


def test_e12_caption_names_models_ablation_and_numbers() -> None:
    text = FIGURES["E12"].caption(depth_table("a", "b"))
    for words in ("a and b", "resample", "2,100 tokens", "321 prompts", "direct effect"):
        assert words in text
    assert 2 <= len(re.findall(r"\.(?: |$)", text)) <= 5


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (depth_table("a").drop("from_norm_share_high"), "no column from_norm_share_high; write"),
        (depth_table("a").filter(ablation="zero"), "no quarters with ablation resample.*; run "),
        (depth_table("a").filter(depth="second half"), "no quarters"),
    ],
)
def test_e12_refuses_a_table_without_its_rows(table: pl.DataFrame, words: str) -> None:
    for call in (FIGURES["E12"].draw, FIGURES["E12"].caption):
        with pytest.raises(InputError, match=f"^E12: .*{words}[^\n]*$"):
            call(table)


# The gallery


def test_the_gallery_has_every_figure_of_the_study() -> None:
    keys = [f"E{n}" for n in range(1, 11)] + ["E11a", "E11b", "E12", "published"]
    assert list(FIGURES) == keys


# Saving


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = heads_table("</script><b>&")
    stem = tmp_path_factory.mktemp("new") / "folder" / "E1.top"
    written = plotting.save_figure(
        figures.self_repair_by_depth(table), FIGURES["E1"].caption(table), stem
    )
    assert written == [stem.with_name(f"E1.top.{kind}") for kind in ("html", "svg", "png", "pdf")]
    return stem


def test_save_writes_four_complete_files_and_nothing_else(saved: Path) -> None:
    names = {path.name for path in saved.parent.iterdir()}
    assert names == {"E1.top.html", "E1.top.svg", "E1.top.png", "E1.top.pdf"}
    content = {name[7:]: (saved.parent / name).read_bytes() for name in names}
    assert content["svg"].startswith(b"<svg")
    assert content["svg"].rstrip().endswith(b"</svg>")
    assert content["pdf"].startswith(b"%PDF")
    assert content["png"].startswith(b"\x89PNG")


def test_png_has_two_pixels_per_unit_and_nothing_is_cropped(saved: Path) -> None:
    svg = saved.with_name("E1.top.svg").read_text()
    match = re.search(r'width="([\d.]+)" height="([\d.]+)"', svg)
    assert match is not None
    png = saved.with_name("E1.top.png").read_bytes()
    width, height = struct.unpack(">II", png[16:24])
    assert abs(width - 2 * float(match[1])) <= 2
    assert abs(height - 2 * float(match[2])) <= 2
    assert width > 2 * 620
    assert height > 2 * 360


def test_page_is_self_contained_and_shows_the_caption(saved: Path) -> None:
    page = saved.with_name("E1.top.html").read_text()
    assert re.findall(r"<script[^>]*\ssrc=", page) == []
    assert re.findall(r"<link[^>]*\shref=", page) == []
    assert len(re.findall(r"</script>", page)) == 3
    packed = dict(re.findall(r'id="(vega|spec)">([^<]*)</script>', page))
    vega, spec = (gzip.decompress(base64.b64decode(packed[n])).decode() for n in ("vega", "spec"))
    assert "window.vegaEmbed" in vega
    chart = figures.self_repair_by_depth(heads_table("</script><b>&"))
    assert json.loads(spec) == chart.to_dict()
    caption = re.search(r"<figcaption>(.*)</figcaption>", page)
    assert caption is not None
    assert "heads of &lt;/script&gt;&lt;b&gt;&amp; (12 in all) under resample" in caption[1]


def test_saving_again_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    table = heads_table("</script><b>&")
    chart, text = figures.self_repair_by_depth(table), FIGURES["E1"].caption(table)
    *same, pdf = plotting.save_figure(chart, text, tmp_path / "E1.top")
    assert pdf.suffix == ".pdf"  # vl-convert orders a PDF's resources at random
    for path in same:
        assert path.read_bytes() == saved.with_name(path.name).read_bytes()


def test_a_failed_drawing_leaves_the_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "E1.svg").write_text("old")

    def fail(*_: Any, **__: Any) -> bytes:
        raise RuntimeError("no room")

    monkeypatch.setattr(plotting.vl_convert, "svg_to_pdf", fail)
    with pytest.raises(RuntimeError, match="no room"):
        plotting.save_figure(figures.self_repair_by_depth(heads_table()), "", tmp_path / "E1")
    assert [path.name for path in tmp_path.iterdir()] == ["E1.svg"]
    assert (tmp_path / "E1.svg").read_text() == "old"


def test_a_failed_write_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        plotting.save_figure(figures.self_repair_by_depth(heads_table()), "", tmp_path / "E1")
    assert list(tmp_path.iterdir()) == []


def test_drawing_does_not_load_torch() -> None:
    code = "import sys, selfrepair.gallery; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
