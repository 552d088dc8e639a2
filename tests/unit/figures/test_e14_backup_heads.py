"""E14 is tested on its spec: the largest pairs in order, with their intervals, and what may be said of them."""

from __future__ import annotations

import json
import re
from typing import Any

import polars as pl
import pytest

from figure_specs import drawn, subtitle
from repair_tables import backup_heads
from selfrepair.errors import InputError
from selfrepair.figures.e14_backup_heads import NO_PAIRS, PAIRS, caption, draw
from selfrepair.figures.rows import NotMeasured
from selfrepair.figures.words import NOT_MAPPED


def points_of(table: pl.DataFrame) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    (points,) = drawn(draw(table).to_dict(), "point", "pair")
    return points, points["rows"]


def test_the_largest_pairs_stand_in_order_with_their_intervals() -> None:
    table = backup_heads(layers=6, heads=3)
    points, rows = points_of(table)
    want = table.drop_nulls("mean").sort("mean", descending=True).head(PAIRS)
    assert [row["mean"] for row in rows] == want["mean"].to_list()
    assert len(rows) == PAIRS
    for row, pair in zip(rows, want.to_dicts(), strict=True):
        assert row["pair"] == (
            f"L{pair['layer']}H{pair['head']} → L{pair['backup_layer']}H{pair['backup_head']}"
        )
        assert (row["mean_low"], row["mean_high"]) == (pair["low"], pair["high"])
        second = table.filter(layer=pair["backup_layer"], head=pair["backup_head"], rank=1)
        assert row["backed_up"] == second["n_backed_up"].item()
    assert points["encoding"]["y"]["sort"] == [row["pair"] for row in rows]
    (bars,) = (
        part for part in drawn(draw(table).to_dict(), "rule", "pair") if "x2" in part["encoding"]
    )
    ends = bars["encoding"]["x"]["field"], bars["encoding"]["x2"]["field"]
    assert ends == ("mean_low", "mean_high")


def test_pairs_that_are_not_told_from_none_are_hollow_and_counted() -> None:
    table = backup_heads(layers=3, heads=2, noise=1)
    points, rows = points_of(table)
    hollow = sum(not row["backs_up"] for row in rows)
    assert hollow > 0
    assert points["encoding"]["fill"]["condition"]["test"] == "datum.backs_up"
    assert f"Hollow: not told from no backup, {hollow} of {len(rows)}" in subtitle(
        draw(table).to_dict()
    )
    clear = backup_heads(layers=12, heads=6, noise=0)
    assert "Hollow" not in subtitle(draw(clear).to_dict())


def test_the_axis_has_a_unit_zero_and_every_interval() -> None:
    points, rows = points_of(backup_heads())
    x = points["encoding"]["x"]
    assert "(logits)" in x["title"]
    low, high = x["scale"]["domain"]
    assert low < 0 < high
    assert all(low < row["mean_low"] < row["mean_high"] < high for row in rows)


def test_the_words_say_what_is_shown_and_how_it_was_picked() -> None:
    table = backup_heads(layers=6, heads=3)
    text = caption(table)
    pairs = sum(3 * 3 * layer for layer in range(6))
    per_head = table.filter(rank=1)
    most = per_head["n_backed_up"].max()
    backed = per_head.filter(pl.col("n_backups") > 0).height
    for words in (
        *("toy", "resample ablation", "22 tokens", "22 prompts", "95 % intervals over prompts"),
        *(f"the largest of {pairs} pairs", "L12H3 is head 3 of layer 12", f"{most} heads"),
        f"{backed} of all 18 ablated heads have a backup",
    ):
        assert words in text
    assert 2 <= len(re.findall(r"\.(?: |$)", text)) <= 6
    spec = draw(table).to_dict()
    assert f"The 20 largest of {pairs} pairs, at most three of a head" in subtitle(spec)
    sizes = re.findall(r'"\w*[fF]ontSize": (\d+)', json.dumps(spec, allow_nan=False))
    assert min(map(int, sizes)) >= 11


def test_one_ablation_is_drawn_resample_if_it_has_a_map() -> None:
    assert "(resample ablation)" in caption(backup_heads("mean", "resample"))
    assert "(zero ablation)" in caption(backup_heads("zero", "mean"))
    assert points_of(backup_heads("mean", "resample"))[1] == points_of(backup_heads())[1]


def test_what_cannot_be_measured_is_said() -> None:
    nothing = ((backup_heads().clear(), NOT_MAPPED), (backup_heads(layers=1), NO_PAIRS))
    for table, reason in nothing:
        for function in (draw, caption):
            with pytest.raises(NotMeasured) as said:
                function(table)
            assert str(said.value) == reason


def test_a_head_of_one_prompt_has_a_point_without_a_bar() -> None:
    table = backup_heads(prompts=1)
    (bars,) = (
        part for part in drawn(draw(table).to_dict(), "rule", "pair") if "x2" in part["encoding"]
    )
    assert bars["transform"] == [{"filter": "isValid(datum.mean_low) && isValid(datum.mean_high)"}]
    assert all(row["mean_low"] is None for row in bars["rows"])


def test_a_table_that_cannot_be_drawn_is_refused() -> None:
    two = pl.concat([backup_heads(), backup_heads(model="other")])
    for function in (draw, caption):
        with pytest.raises(
            InputError, match=r"^E14: the backup_heads table has no column rank; write"
        ):
            function(backup_heads().drop("rank"))
        with pytest.raises(InputError, match=r"^E14: takes one model, got toy and other"):
            function(two)
