"""Figures of a study whose sweeps left heads out (`sweep.heads`) draw those that there are, and say how many."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from figure_specs import drawn, layers_of, subtitle
from figure_tables import depth_table, heads_table, training_tables
from repair_tables import repair_layers
from selfrepair.figures import (
    e01_self_repair_by_depth,
    e02_effect_against_change,
    e05_norm_share_by_depth,
    e06_breakdown_by_head,
    e12_breakdown_across_models,
    e13_repair_map,
    e15_self_repair_across_models,
    e19_emergence,
)
from selfrepair.figures.rows import NotMeasured
from selfrepair.vocabulary import QUARTERS, SECOND_HALF


def left_out(table: pl.DataFrame, which: pl.Expr) -> pl.DataFrame:
    """The table without numbers where heads were not ablated."""
    numbers = pl.when(which).then(float("nan")).otherwise(pl.selectors.float()).name.keep()
    counts = [pl.when(~which).then(name).alias(name) for name in ("n_tokens", "n_prompts")]
    return table.with_columns(numbers, *counts)


def heads_drawn(spec: dict[str, Any], column: str) -> list[set[Any]]:
    """The values of a column in each chart of points, rows of lines left out."""
    parts = [part for part in layers_of(spec) if part["mark"]["type"] == "point"]
    assert parts
    return [{row[column] for row in part["rows"] if row.get("line") is None} for part in parts]


HEADS = left_out(heads_table("toy", layers=6, heads=3), pl.col("layer") < 3)
DEPTH = left_out(depth_table("toy"), pl.col("depth").is_in(QUARTERS[:2]))
NO_GROUP = left_out(depth_table("toy"), pl.lit(True))


@pytest.mark.parametrize(
    "figure",
    [
        e01_self_repair_by_depth,
        e02_effect_against_change,
        e05_norm_share_by_depth,
        e06_breakdown_by_head,
    ],
)
def test_heads_that_were_ablated_are_drawn_and_counted(figure: Any) -> None:
    spec = figure.draw(HEADS).to_dict()
    lines = subtitle(spec)
    assert "Ablated: 9 of 18 heads" in lines
    assert "without a finite value" not in lines
    assert all(layers == {3, 4, 5} for layers in heads_drawn(spec, "layer"))
    full = figure.draw(heads_table("toy", layers=6, heads=3)).to_dict()
    assert "Ablated" not in (subtitle(full))


def test_depth_is_that_of_the_model_and_not_of_the_heads_that_were_ablated() -> None:
    last_left_out = left_out(heads_table("toy", layers=5, heads=2), pl.col("layer") > 2)
    spec = e01_self_repair_by_depth.draw(last_left_out).to_dict()
    assert heads_drawn(spec, "depth") == [{0.0, 0.25, 0.5}]
    assert "(6 of 10)" in e01_self_repair_by_depth.caption(last_left_out)
    assert "(9 of 18)" in e06_breakdown_by_head.caption(HEADS)


@pytest.mark.parametrize("figure", [e12_breakdown_across_models, e15_self_repair_across_models])
def test_quarters_of_which_not_every_head_was_ablated_are_left_out_and_named(figure: Any) -> None:
    spec = figure.draw(DEPTH).to_dict()
    line = "Left out, as not every head was ablated: first quarter and second quarter"
    assert line in subtitle(spec)
    assert line in figure.caption(DEPTH)
    assert "without a finite value" not in (subtitle(spec))
    assert all(depth == {*QUARTERS[2:]} for depth in heads_drawn(spec, "depth"))
    assert "Left out" not in (subtitle(figure.draw(depth_table("toy")).to_dict()))


@pytest.mark.parametrize("figure", [e12_breakdown_across_models, e15_self_repair_across_models])
def test_without_a_whole_quarter_there_are_words(figure: Any) -> None:
    for function in (figure.draw, figure.caption):
        with pytest.raises(NotMeasured, match="ablated no such group of layers whole"):
            function(NO_GROUP)


def test_checkpoints_are_not_drawn_without_the_second_half() -> None:
    tokens = {"a": 10**6, "b": 10**9}
    training = training_tables(tokens)
    half = pl.col("depth") == SECOND_HALF
    for function in (e19_emergence.draw, e19_emergence.caption):
        with pytest.raises(NotMeasured, match="ablated no such group of layers whole"):
            function(left_out(depth_table(*tokens), half), training)
    spec = e19_emergence.draw(
        left_out(depth_table(*tokens), half & (pl.col("model") == "a")), training
    )
    assert "Left out, as not every head was ablated: second half" in subtitle(spec.to_dict())


def test_the_map_has_no_cell_of_a_layer_without_an_ablated_head() -> None:
    table = repair_layers(layers=6, heads=3)
    early = pl.col("layer") < 3
    some = table.with_columns(
        mean=pl.when(early).then(float("nan")).otherwise("mean"),
        n_heads=pl.when(early).then(0).otherwise("n_heads").cast(pl.Int32),
        n_tokens=pl.when(early).then(0).otherwise("n_tokens").cast(pl.Int32),
    )
    spec = e13_repair_map.draw(some).to_dict()
    (cells,) = drawn(spec, "rect", "component_layer")
    assert {row["layer"] for row in cells["rows"]} == {3, 4, 5}
    lines = subtitle(spec)
    assert "Layers without an ablated head: 3 of 6" in lines
    assert "without a finite value" not in lines
    assert "Layers without" not in (subtitle(e13_repair_map.draw(table).to_dict()))
