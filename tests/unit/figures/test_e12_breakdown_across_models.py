"""E12 is tested on its spec: what is drawn, where, under which title."""

from __future__ import annotations

import json
import re

import polars as pl
import pytest

from figure_specs import drawn, headings, subtitle
from figure_tables import depth_table
from selfrepair.errors import InputError
from selfrepair.figures.e12_breakdown_across_models import PARTS, TOTAL, caption, draw
from selfrepair.vocabulary import QUARTERS


def test_every_quarter_and_part_of_every_model_is_drawn_once() -> None:
    table = depth_table("d", "b", "c", "a")
    spec = draw(table).to_dict()
    assert headings(spec) == ["d", "b", "c", "a"]
    (bars,) = drawn(spec, "bar", "value")
    diamonds, beyond = drawn(spec, "point", "value")
    (whiskers,) = drawn(spec, "rule", "value_low")
    assert bars["transform"] == [{"filter": f"datum.part != '{TOTAL}'"}]
    assert diamonds["transform"] == [
        {"filter": f"datum.part == '{TOTAL}' && datum.edge == 'within'"}
    ]
    assert beyond["transform"] == [{"filter": "datum.edge != 'within'"}]
    assert whiskers["encoding"]["y2"]["field"] == "value_high"
    want = table.filter(pl.col("depth").is_in(QUARTERS), ablation="resample", selection="top")
    got = {(row["model"], row["depth"], row["part"]): row for row in bars["rows"]}
    parts = {name: part for name, part in PARTS.items() if name != "from_post_norms_share"}
    assert len(got) == len(bars["rows"]) == 4 * 4 * len(parts)
    for row in want.to_dicts():
        for name, part in parts.items():
            mark = got[row["model"], row["depth"], part]
            for end in ("", "_low", "_high"):
                assert mark[f"value{end}"] == row[f"{name}{end}"]
    assert bars["encoding"]["y"]["title"] == "Share of the direct effect (%)"
    assert bars["encoding"]["y"]["axis"]["format"] == ".0%"
    assert bars["encoding"]["x"]["sort"] == list(QUARTERS)
    assert bars["encoding"]["xOffset"]["field"] == "part"


def test_post_norms_have_a_bar_in_models_that_have_them_only() -> None:
    table = depth_table("a", "b", post_norms=["b"])
    (bars,) = drawn(draw(table).to_dict(), "bar", "value")
    name = PARTS["from_post_norms_share"]
    own = [row for row in bars["rows"] if row["part"] == name]
    assert {row["model"] for row in own} == {"b"}
    assert len(own) == 4
    assert name in bars["encoding"]["color"]["scale"]["domain"]
    assert "post-norms" in caption(table).lower()
    for part in (depth_table("a"), table.filter(model="a")):
        assert name not in str(draw(part).to_dict())
        assert "post-norms" not in caption(part).lower()


def test_what_is_missing_or_beyond_the_axis_is_counted() -> None:
    table = depth_table("a", "b", "c")
    here = (pl.col("model") == "b") & (pl.col("depth") == "first quarter")
    table = table.with_columns(
        from_heads_share=pl.when(here).then(-80.0).otherwise("from_heads_share"),
        from_mlps_share=pl.when(here).then(float("nan")).otherwise("from_mlps_share"),
    )
    spec = draw(table).to_dict()
    json.dumps(spec, allow_nan=False)
    assert "1 of 47 bars" in subtitle(spec)
    assert "without a finite value, not drawn: 1" in subtitle(spec)
    _, beyond = drawn(spec, "point", "value")
    (outlier,) = (row for row in beyond["rows"] if row["edge"] != "within")
    assert (outlier["model"], outlier["value"], outlier["edge"]) == ("b", -80.0, "below")
    assert beyond["encoding"]["y"]["scale"]["domain"][0] > -10


def test_a_shallow_model_has_fewer_quarters() -> None:
    table = depth_table("tiny").filter(pl.col("depth").is_in(["third quarter", "first quarter"]))
    (bars,) = drawn(draw(table).to_dict(), "bar", "value")
    assert {row["depth"] for row in bars["rows"]} == {"third quarter", "first quarter"}


def test_the_caption_names_models_ablation_and_numbers() -> None:
    text = caption(depth_table("a", "b"))
    for words in ("a and b", "resample", "1,234 tokens", "321 prompts", "direct effect"):
        assert words in text
    assert 2 <= len(re.findall(r"\.(?: |$)", text)) <= 5


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (depth_table("a").drop("from_norm_share_high"), "no column from_norm_share_high; write"),
        (depth_table("a").drop("selection"), "no column selection; write"),
        (depth_table("a").filter(ablation="zero"), "no rows with ablation resample.*; run "),
        (depth_table("a").filter(depth="second half"), "no rows with ablation resample.*; run "),
    ],
)
def test_a_table_without_its_rows_is_refused(table: pl.DataFrame, words: str) -> None:
    for function in (draw, caption):
        with pytest.raises(InputError, match=f"^E12: .*{words}[^\n]*$"):
            function(table)
