"""E15 is tested on its spec: what is drawn, where, under which title."""

from __future__ import annotations

import polars as pl
import pytest

from figure_specs import drawn, subtitle
from figure_tables import depth_table
from selfrepair.errors import InputError
from selfrepair.figures.e15_self_repair_across_models import SHARE, caption, draw
from selfrepair.vocabulary import QUARTERS


@pytest.mark.parametrize("models", [("a",), ("d", "b", "a"), tuple("abcdefgh")])
def test_every_quarter_of_every_model_is_drawn_once(models: tuple[str, ...]) -> None:
    table = depth_table(*models)
    spec = draw(table).to_dict()
    (points,) = drawn(spec, "point", SHARE)
    (line,) = drawn(spec, "line", SHARE)
    (bars,) = drawn(spec, "rule", f"{SHARE}_low")
    want = table.filter(pl.col("depth").is_in(QUARTERS), ablation="resample", selection="top")
    columns = ["model", "depth", SHARE, f"{SHARE}_low", f"{SHARE}_high"]
    for part in (points, line, bars):
        assert pl.DataFrame(part["rows"]).select(columns).equals(want.select(columns))
        assert part["encoding"]["color"]["scale"]["domain"] == list(models)
    assert bars["encoding"]["y2"]["field"] == f"{SHARE}_high"
    assert line["encoding"]["y"]["title"] == "Share of the direct effect made up for (%)"
    assert line["encoding"]["y"]["axis"]["format"] == ".0%"


def test_models_stand_side_by_side_within_a_quarter() -> None:
    models = list("abcdefgh")
    spec = draw(depth_table(*models)).to_dict()
    (points,) = drawn(spec, "point", SHARE)
    across, beside = points["encoding"]["x"], points["encoding"]["xOffset"]
    assert (across["field"], across["scale"]["domain"]) == ("depth", list(QUARTERS))
    assert (beside["field"], beside["scale"]["domain"]) == ("model", models)
    (line,), (bars,) = (drawn(spec, "line", SHARE), drawn(spec, "rule", f"{SHARE}_low"))
    for part in (line, bars):
        assert part["encoding"]["x"] == across
        assert part["encoding"]["xOffset"] == beside


def test_the_order_of_several_models_is_said() -> None:
    assert "in the order of the legend" in subtitle(draw(depth_table("a", "b")).to_dict())
    assert "legend" not in subtitle(draw(depth_table("a")).to_dict())


def test_what_is_missing_or_beyond_the_axis_is_counted() -> None:
    table = depth_table("a", "b", "c", "d", "e")
    first = pl.col("depth") == "first quarter"
    table = table.with_columns(
        pl.when(first & (pl.col("model") == "b"))
        .then(-80.0)
        .when(first & (pl.col("model") == "c"))
        .then(float("nan"))
        .otherwise(SHARE)
        .alias(SHARE)
    )
    spec = draw(table).to_dict()
    assert "1 of 19 points" in subtitle(spec)
    assert "without a finite value, not drawn: 1" in subtitle(spec)


def test_the_caption_names_models_and_how_to_read_it() -> None:
    text = caption(depth_table("a", "b"))
    for words in ("a and b", "resample", "1,234 tokens", "321 prompts", "100 % would restore"):
        assert words in text


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (depth_table("a").drop(f"{SHARE}_high"), f"no column {SHARE}_high; write"),
        (depth_table("a").filter(ablation="zero"), "no rows with ablation resample.*; run "),
        (depth_table("a").filter(depth="second half"), "no rows with ablation resample.*; run "),
    ],
)
def test_a_table_without_its_rows_is_refused(table: pl.DataFrame, words: str) -> None:
    for function in (draw, caption):
        with pytest.raises(InputError, match=f"^E15: .*{words}[^\n]*$"):
            function(table)
