"""E18 is tested on its spec: every head, the intervals of the largest, and what the words say."""

from __future__ import annotations

from functools import cache
from typing import Any

import polars as pl
import pytest

import chosen_tables as made
from figure_specs import drawn, subtitle
from selfrepair.errors import InputError
from selfrepair.figures.e18_narrow_against_full import BARS, NOT_DONE, caption, draw
from selfrepair.figures.rows import NotMeasured
from selfrepair.tables.narrow import no_narrow_tables


@cache
def plain() -> dict[str, Any]:
    """Of the made up tables, drawn once for all tests."""
    return draw(made.narrow_heads(), made.narrow_summaries()).to_dict()


def test_every_head_is_a_point_and_the_largest_have_intervals() -> None:
    table, spec = made.narrow_heads(), plain()
    (points,) = drawn(spec, "point", "self_repair")
    rows = pl.DataFrame(points["rows"])
    columns = ["layer", "head", "full_self_repair"]
    assert rows.select(columns).cast(pl.Float32).equals(table.select(columns).cast(pl.Float32))
    assert points["encoding"]["x"]["field"] == "full_self_repair"
    assert points["encoding"]["color"]["field"] == "layer"
    for axis in ("x", "y"):
        assert "(logits)" in points["encoding"][axis]["title"]
    (bars,) = drawn(spec, "rule", "self_repair_low")
    assert bars["encoding"]["y2"]["field"] == "self_repair_high"
    sizes = rows.sort(pl.col("self_repair").abs(), descending=True)["barred"].to_list()
    assert sizes == [True] * BARS + [False] * (rows.height - BARS)


def test_the_dashed_line_is_the_same_on_both() -> None:
    (line,) = drawn(plain(), "line", "y")
    assert all(row["y"] == pytest.approx(row["x"]) for row in line["rows"])


def test_words_give_the_task_the_correlations_and_the_backups() -> None:
    lines = subtitle(plain())
    assert "toy, resample ablation; task: indirect object identification" in lines
    assert "second half 0.61 [0.56, 0.67]; all heads 0.43 [0.38, 0.49]" in lines
    assert (
        "90 % [85, 96] of the prompts; mean difference over all of them 2.50 [2.45, 2.56] logits"
        in lines
    )
    assert NOT_DONE not in lines
    told = caption(made.narrow_heads(), made.narrow_summaries())
    assert "it would be 0.80 [0.75, 0.86] (second half, from two halves)" in told
    assert "40 % [35, 46] are the same on both" in told


def test_a_model_that_does_not_do_the_task_is_said_to() -> None:
    tables = made.narrow_heads(), made.narrow_summaries(done=False)
    assert NOT_DONE in subtitle(draw(*tables).to_dict())
    assert NOT_DONE in caption(*tables)


def test_without_a_map_there_are_no_backups() -> None:
    summaries = made.narrow_summaries().filter(~pl.col("quantity").str.contains("overlap"))
    assert "take over" not in caption(made.narrow_heads(), summaries)


def test_heads_without_a_value_on_text_are_counted() -> None:
    table = made.change_first(made.narrow_heads(), full_self_repair=None)
    assert "not drawn: 1" in subtitle(draw(table, made.narrow_summaries()).to_dict())


def test_without_the_task_or_text_it_says_so() -> None:
    alone = made.narrow_heads().with_columns(full_self_repair=pl.lit(None, dtype=pl.Float32))
    for function in (draw, caption):
        with pytest.raises(NotMeasured, match="leaves the narrow task out"):
            function(*no_narrow_tables())
        with pytest.raises(NotMeasured, match="no resample ablation of its text"):
            function(alone, made.narrow_summaries())


def test_several_models_are_refused() -> None:
    table = made.narrow_heads()
    two = pl.concat([table, table.with_columns(model=pl.lit("b"))])
    with pytest.raises(InputError, match="E18: takes one model, got toy and b"):
        draw(two, made.narrow_summaries())


def test_estimates_of_another_model_are_refused() -> None:
    with pytest.raises(InputError, match="no self_repair_correlation of experiment E18 for toy"):
        draw(made.narrow_heads(), made.narrow_summaries().with_columns(model=pl.lit("other")))
