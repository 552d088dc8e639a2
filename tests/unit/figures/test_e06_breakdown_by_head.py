"""E6 is tested on its spec: what is drawn, where, under which title."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from figure_specs import drawn, layers_of, subtitle
from figure_tables import change, heads_table, two_models
from selfrepair.errors import InputError
from selfrepair.figures.e06_breakdown_by_head import EFFECTS, INKS, ROWS, caption, draw
from selfrepair.tables.terms import POST_NORMS
from selfrepair.vocabulary import TERMS


def points_of(spec: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The heads drawn, by quantity."""
    rows = [row for part in drawn(spec, "point", "value") for row in part["rows"]]
    return {name: [row for row in rows if row["quantity"] == name] for name in ROWS}


@pytest.mark.parametrize("post_norms", [False, True])
def test_a_row_per_quantity_with_all_heads_in_order(post_norms: bool) -> None:
    table = heads_table(layers=3, heads=4, post_norms=post_norms)
    spec = draw(table).to_dict()
    headings = [name for part in spec["vconcat"] for name in part["facet"]["row"]["sort"]]
    assert headings == [name for key, name in ROWS.items() if post_norms or key != POST_NORMS]
    assert ("post-norms" in caption(table)) is post_norms
    assert ("post-norms" in str(spec)) is post_norms
    want = table.filter(ablation="resample", selection="top")
    for name, rows in points_of(spec).items():
        if not rows:
            assert name == POST_NORMS
            assert not post_norms
            continue
        for end in ("", "_low", "_high"):
            assert [row[f"value{end}"] for row in rows] == want[f"{name}{end}"].to_list()
        places = [row["place"] for row in rows]
        assert places == sorted(places)
        assert all(abs(row["place"] - row["layer"]) < 0.5 for row in rows)
    for points in drawn(spec, "point", "value"):
        assert points["encoding"]["y"]["title"] == "logits"


def test_the_bar_across_a_layer_is_the_mean_of_its_heads() -> None:
    ticks = [p for p in layers_of(draw(heads_table()).to_dict()) if p["mark"]["type"] == "tick"]
    assert len(ticks) == 2
    for tick in ticks:
        assert tick["encoding"]["y"]["aggregate"] == "mean"
        assert tick["encoding"]["y"]["field"] == "value"
        assert tick["encoding"]["x"]["field"] == "layer"
        assert set(tick["encoding"]) == {"x", "y"}  # nothing else splits a layer's heads
        assert tick["facet"]["row"]["field"] == "panel"


def test_effects_share_a_scale_and_terms_another() -> None:
    spec = draw(heads_table(post_norms=True)).to_dict()
    first, second = drawn(spec, "point", "value")
    assert {row["quantity"] for row in first["rows"]} == set(EFFECTS)
    assert {row["quantity"] for row in second["rows"]} == set(TERMS)
    scales = [part["encoding"]["color"]["scale"] for part in (first, second)]
    assert scales[0] == scales[1]  # else they are merged and colours mixed up
    assert dict(zip(scales[0]["domain"], scales[0]["range"], strict=True)) == {
        ROWS[name]: ink for name, ink in INKS.items()
    }
    domains = [part["encoding"]["y"]["scale"]["domain"] for part in (first, second)]
    assert domains[0] != domains[1]


def test_layer_means_lie_within_the_axis() -> None:
    table = heads_table(layers=20, heads=10, ablations=("resample",))
    table = change(table, 4, 4, from_norm=80.0)
    mean = table.filter(layer=4, selection="top")["from_norm"].mean()
    _, terms = drawn(draw(table).to_dict(), "point", "value")
    assert mean < terms["encoding"]["y"]["scale"]["domain"][1] < 40


def test_the_largest_head_of_each_row_is_named() -> None:
    table = change(heads_table(post_norms=True), 1, 2, from_mlps=-3.0)
    texts = [p for p in layers_of(draw(table).to_dict()) if p["mark"]["type"] == "text"]
    assert all(text["transform"] == [{"filter": "isValid(datum.name)"}] for text in texts)
    named = [row for text in texts for row in text["rows"] if row["name"] is not None]
    assert [row["quantity"] for row in named] == list(ROWS)
    assert named[3]["name"] == "L1H2"


def test_a_head_beyond_the_axis_stays_visible_and_is_counted() -> None:
    table = heads_table(layers=20, heads=10, ablations=("resample",))
    spec = draw(change(table, 4, 4, from_norm=80.0)).to_dict()
    outliers = [row for row in points_of(spec)["from_norm"] if row["edge"] != "within"]
    assert [(row["layer"], row["head"], row["edge"]) for row in outliers] == [(4, 4, "above")]
    assert "1 of 1,000 points" in subtitle(spec)


def test_the_caption_takes_its_numbers_from_the_table() -> None:
    text = caption(heads_table("my-model"))
    for words in ("my-model", "12 in all", "resample", "1,234 tokens", "321 prompts"):
        assert words in text


def test_what_it_cannot_draw_is_refused() -> None:
    for function in (draw, caption):
        with pytest.raises(InputError, match=r"^E6: takes one model, got a and b"):
            function(two_models())
        with pytest.raises(InputError, match=r"^E6: .* no column from_mlps;"):
            function(heads_table().drop("from_mlps"))
        with pytest.raises(InputError, match=r"^E6: .* ablation resample, selection top .*; run "):
            function(heads_table().filter(pl.col("ablation") != "resample"))
