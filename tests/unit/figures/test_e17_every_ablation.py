"""E17 is tested on its spec: every head and ablation with its interval, in three panels, and the words."""

from __future__ import annotations

from functools import cache
from typing import Any

import polars as pl
import pytest

import chosen_tables as made
from figure_specs import drawn, subtitle
from selfrepair.errors import InputError
from selfrepair.figures.e17_every_ablation import DRAWN, NAMES, caption, draw
from selfrepair.figures.rows import NotMeasured
from selfrepair.other_ablations import COMPARED, OPTIMAL, RANDOM
from selfrepair.tables.compared_ablations import no_compared_tables


@cache
def plain() -> dict[str, Any]:
    """Of the made up tables, drawn once for all tests."""
    return draw(made.compared_ablations(), made.compared()).to_dict()


@pytest.mark.parametrize("quantity", DRAWN)
def test_every_head_and_ablation_is_a_point_with_its_interval(quantity: str) -> None:
    spec = plain()
    (points,) = drawn(spec, "point", quantity, axis="x")
    ablations = [name for name in COMPARED if quantity != "restored_share" or name != RANDOM]
    found = {(row["name"], row["ablation_name"], row[quantity]) for row in points["rows"]}
    table = made.compared_ablations()
    assert found == {
        (f"L{row['layer']}H{row['head']}", NAMES[row["ablation"]], row[quantity])
        for row in table.to_dicts()
        if row["ablation"] in ablations
    }
    (bars,) = drawn(spec, "rule", f"{quantity}_low", axis="x")
    assert bars["encoding"]["x2"]["field"] == f"{quantity}_high"
    assert points["encoding"]["yOffset"]["sort"] == list(COMPARED)


def test_words_give_the_estimates_and_the_sample() -> None:
    lines = subtitle(plain())
    assert "0.90 [0.85, 0.96]" in lines
    assert "-0.10 [-0.15, -0.04]" in lines
    assert "0.70 [0.65, 0.76]" in lines
    assert "40 tokens per head, 7 prompts" in lines
    text = caption(made.compared_ablations(), made.compared())
    assert "zero 40 % [35, 46]" in text
    assert "none of the other ablations does less harm" in text


def test_a_head_that_another_ablation_harms_less_is_named() -> None:
    better = (pl.col("layer") == 3) & (pl.col("head") == 2) & (pl.col("ablation") == "mean")
    table = made.compared_ablations().with_columns(
        loss_above_optimal_high=pl.when(better).then(-0.01).otherwise("loss_above_optimal_high")
    )
    assert "constant of head L3H2." in caption(table, made.compared())


def test_a_head_without_a_value_keeps_its_row_in_every_panel() -> None:
    none = (pl.col("layer") == 3) & (pl.col("head") == 2)
    table = made.compared_ablations().with_columns(compensation=pl.when(~none).then("compensation"))
    panels = draw(table, made.compared()).to_dict()["hconcat"]
    domains = [
        layer["encoding"]["y"]["scale"]["domain"] for p in panels for layer in p["layer"][1:]
    ]
    assert all(domain == ["L2H1", "L3H0", "L3H2"] for domain in domains)
    assert len({panel["height"] for panel in panels}) == 1


def test_of_many_heads_those_with_the_largest_direct_effects_are_drawn() -> None:
    table = made.compared_ablations().filter(layer=2)
    many = pl.concat(
        table.with_columns(layer=pl.lit(layer, pl.Int32), direct_effect=pl.lit(float(layer)))
        for layer in range(30)
    )
    (points,) = drawn(draw(many, made.compared()).to_dict(), "point", "loss", axis="x")
    names = {row["name"] for row in points["rows"]}
    assert names == {f"L{layer}H1" for layer in range(14, 30)}


def test_without_constants_it_says_so() -> None:
    for function in (draw, caption):
        with pytest.raises(NotMeasured, match="trains no constants for optimal ablation"):
            function(*no_compared_tables())


def test_several_models_and_missing_columns_are_refused() -> None:
    table = made.compared_ablations()
    two = pl.concat([table, table.with_columns(model=pl.lit("other"))])
    with pytest.raises(InputError, match="takes one model"):
        draw(two, made.compared())
    with pytest.raises(InputError, match="no column loss_low"):
        draw(table.drop("loss_low"), made.compared())
    with pytest.raises(InputError, match="no restored_ratio of experiment E17"):
        draw(table, made.compared().with_columns(model=pl.lit("other")))
    assert OPTIMAL in NAMES
