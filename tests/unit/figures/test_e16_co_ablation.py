"""E16 is tested on its spec: every pair with both intervals, the line of full loss, and the words."""

from __future__ import annotations

from functools import cache
from typing import Any

import polars as pl
import pytest

import chosen_tables as made
from figure_specs import drawn, subtitle
from selfrepair.errors import InputError
from selfrepair.figures.e16_co_ablation import NAMES, caption, draw
from selfrepair.figures.rows import NotMeasured
from selfrepair.tables.co_ablation import no_co_ablation_tables
from selfrepair.tables.pairs import BACKUP, CONTROL


@cache
def plain() -> dict[str, Any]:
    """Of the made up tables, drawn once for all tests."""
    return draw(made.co_ablation(), made.excesses()).to_dict()


def test_every_pair_is_a_point_with_its_kind_and_both_intervals() -> None:
    table, spec = made.co_ablation(), plain()
    (points,) = drawn(spec, "point", "excess")
    rows = pl.DataFrame(points["rows"])
    assert rows.select("second_change", "excess").equals(table.select("second_change", "excess"))
    assert rows["pair"][0] == "L0H0 and L2H0"
    assert rows["kind_name"].to_list() == [NAMES[kind] for kind in table["kind"]]
    assert points["encoding"]["x"]["field"] == "second_change"
    for axis in ("x", "y"):
        assert "(logits)" in points["encoding"][axis]["title"]
    (up,) = drawn(spec, "rule", "excess_low")
    assert up["encoding"]["y2"]["field"] == "excess_high"
    (across,) = drawn(spec, "rule", "excess")
    ends = across["encoding"]["x"]["field"], across["encoding"]["x2"]["field"]
    assert ends == ("second_change_low", "second_change_high")


def test_on_the_dashed_line_all_that_was_made_up_for_is_lost() -> None:
    (line,) = drawn(plain(), "line", "y")
    assert all(row["y"] == pytest.approx(-row["x"]) for row in line["rows"])


def test_words_give_the_estimates_and_the_sample() -> None:
    lines = subtitle(plain())
    assert "backups -0.16 [-0.21, -0.10] logits; controls 0.01 [-0.04, 0.07] logits" in lines
    assert "toy, resample ablation" in lines
    assert "40 tokens per pair, 7 prompts" in lines
    assert "80 % [75, 86]" in caption(made.co_ablation(), made.excesses())


def test_without_controls_only_backups_are_named() -> None:
    table = made.co_ablation().filter(kind=BACKUP)
    estimates = made.excesses().filter(pl.col("group") != CONTROL)
    lines = subtitle(draw(table, estimates).to_dict())
    assert "backups" in lines
    assert "controls" not in lines


def test_without_pairs_it_says_so() -> None:
    for function in (draw, caption):
        with pytest.raises(NotMeasured, match="none of this model's heads backs up another"):
            function(*no_co_ablation_tables())


def test_estimates_of_another_model_are_refused() -> None:
    with pytest.raises(InputError, match="no excess of experiment E16 for toy"):
        draw(made.co_ablation(), made.excesses().with_columns(model=pl.lit("other")))


def test_several_models_are_refused() -> None:
    table = made.co_ablation()
    two = pl.concat([table, table.with_columns(model=pl.lit("b"))])
    with pytest.raises(InputError, match="E16: takes one model, got toy and b"):
        draw(two, made.excesses())
