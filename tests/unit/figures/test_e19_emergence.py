"""E19 is tested on its spec: what is drawn, where, under which title."""

from __future__ import annotations

import json
import math
import re
from functools import cache
from typing import Any

import altair as alt
import polars as pl
import pytest
import vl_convert

from figure_specs import drawn, layers_of, subtitle
from figure_tables import depth_table, training_tables
from selfrepair.errors import InputError
from selfrepair.figures.e19_emergence import LOSS, SHARE, across, caption, draw
from selfrepair.figures.marks import PARTS
from selfrepair.figures.rows import NotMeasured
from selfrepair.vocabulary import SECOND_HALF, bounded

# Not in the order of training, as a study may name them.
TOKENS = {"last": 3 * 10**11, "start": 0, "early": 2 * 10**6, "later": 10**9}
DEPTH, TRAINING = depth_table(*TOKENS), training_tables(TOKENS)
NO_POST_NORMS = {name: part for name, (part, _) in PARTS.items() if name != "from_post_norms"}


def spec_of(depth: pl.DataFrame, training: pl.DataFrame = TRAINING) -> dict[str, Any]:
    return draw(depth, training).to_dict()


@cache
def plain() -> dict[str, Any]:
    """Of these tables, drawn once for all tests."""
    return spec_of(DEPTH, TRAINING)


def rows_of(table: pl.DataFrame) -> pl.DataFrame:
    return table.filter(ablation="resample", selection="top", depth=SECOND_HALF)


def test_every_part_of_every_checkpoint_is_drawn_once_with_its_interval() -> None:
    spec = plain()
    json.dumps(spec, allow_nan=False)
    (points,) = drawn(spec, "point", "value")
    (bars,) = drawn(spec, "rule", "value_low")
    assert bars["encoding"]["y2"]["field"] == "value_high"
    got = {(row["model"], row["part"]): row for row in points["rows"]}
    assert len(got) == len(points["rows"]) == 4 * len(NO_POST_NORMS)
    for row in rows_of(DEPTH).to_dicts():
        for name, part in NO_POST_NORMS.items():
            mark = got[row["model"], part]
            assert [mark[end] for end in bounded("value")] == [row[end] for end in bounded(name)]
            assert mark["training_tokens"] == TOKENS[row["model"]]
    assert points["encoding"]["y"]["title"] == "Mean over heads (logits)"
    assert points["encoding"]["color"]["scale"]["domain"] == list(NO_POST_NORMS.values())


def test_the_restored_share_and_the_loss_have_panels_of_their_own() -> None:
    spec = plain()
    (shares,) = drawn(spec, "point", SHARE)
    (bars,) = drawn(spec, "rule", f"{SHARE}_low")
    for row in rows_of(DEPTH).to_dicts():
        for part in (shares, bars):
            (mark,) = (each for each in part["rows"] if each["model"] == row["model"])
            assert [mark[end] for end in bounded(SHARE)] == [row[end] for end in bounded(SHARE)]
    assert shares["encoding"]["y"]["axis"]["format"] == ".0%"
    (losses,) = drawn(spec, "point", LOSS)
    found = {row["model"]: row[LOSS] for row in losses["rows"]}
    assert found == dict(TRAINING.select("model", LOSS).iter_rows())
    assert losses["encoding"]["y"]["title"] == "Loss (nats)"
    # The table has no interval of it.
    assert not drawn(spec, "rule", f"{LOSS}_low")
    low, high = losses["encoding"]["y"]["scale"]["domain"]
    assert 7 < low < min(found.values())
    assert max(found.values()) < high < 12


def test_tokens_are_on_a_log_scale_on_which_the_start_has_a_marked_place() -> None:
    spec = plain()
    (losses,) = drawn(spec, "point", LOSS)
    place = {row["model"]: row["place"] for row in losses["rows"]}
    assert [*place] == ["start", "early", "later", "last"]
    assert losses["encoding"]["x"]["scale"]["type"] == "log"
    assert all(place[model] == tokens for model, tokens in TOKENS.items() if tokens)
    assert 0 < place["start"] < place["early"]
    borders = drawn(spec, "rule", "x", axis="x")
    assert len(borders) == 3
    for border in borders:
        assert place["start"] < border["rows"][0]["x"] < place["early"]
    axis, low_high = losses["encoding"]["x"]["axis"], losses["encoding"]["x"]["scale"]["domain"]
    assert low_high[0] < place["start"]
    assert place["last"] < low_high[1]
    # A tick at each checkpoint.
    assert axis["values"] == [*place.values()]
    # No line leads to a checkpoint that has no place on the scale.
    (line,) = drawn(spec, "line", LOSS)
    assert "datum.training_tokens > 0" in line["transform"][0]["filter"]
    assert "before training" in subtitle(spec)


def test_without_a_start_nothing_is_said_of_it() -> None:
    training = TRAINING.filter(pl.col("training_tokens") > 0)
    spec = spec_of(DEPTH, training)
    assert not drawn(spec, "rule", "x", axis="x")
    assert "before training" not in subtitle(spec)
    assert "dashed" not in caption(DEPTH, training)
    (losses,) = drawn(spec, "point", LOSS)
    assert [row["model"] for row in losses["rows"]] == ["early", "later", "last"]


def test_parts_of_a_checkpoint_stand_side_by_side_about_its_place() -> None:
    (points,) = drawn(plain(), "point", "value")
    places = [row["place"] for row in points["rows"] if row["model"] == "later"]
    assert len(set(places)) == len(places) == 4
    assert math.prod(places) ** 0.25 == pytest.approx(10**9)
    assert 1 < max(places) / min(places) < 2


@pytest.mark.parametrize(
    ("tokens", "labels"),
    [
        ([0, 0], ["0", "1"]),
        ([0, 10**9], ["0", "1B"]),
        ([1_500, 6_000], ["1.5k", "6k"]),
        ([1_100_000, 1_300_000], ["1.1M", "1.3M"]),
        ([0, 10**8, 2 * 10**13], ["0", "100M", "20T"]),
    ],
)
def test_labels_are_numbers_of_tokens(tokens: list[int], labels: list[str]) -> None:
    x, _, border = across(pl.Series(tokens))
    low, high = x.to_dict()["scale"]["domain"]
    values = x.to_dict()["axis"]["values"]
    assert all(low < value < high for value in values)
    assert [value < border for value in values] == [label == "0" for label in labels]
    svg = vl_convert.vegalite_to_svg(
        alt.Chart(pl.DataFrame({"place": [low]})).mark_point().encode(x).to_dict()
    )
    assert re.findall(r">([0-9.]+[kMBT]?)</text>", svg) == labels


def test_post_norms_are_drawn_where_there_are_some() -> None:
    part = PARTS["from_post_norms"][0]
    depth = depth_table(*TOKENS, post_norms=list(TOKENS))
    (points,) = drawn(spec_of(depth), "point", "value")
    assert sum(row["part"] == part for row in points["rows"]) == 4
    assert part not in json.dumps(plain())


def test_models_that_do_not_state_their_tokens_are_named_and_not_drawn() -> None:
    depth = depth_table(*TOKENS, "other")
    training = training_tables({**TOKENS, "other": None})
    spec = spec_of(depth, training)
    assert "not drawn: other" in subtitle(spec)
    assert "other" not in {row.get("model") for part in layers_of(spec) for row in part["rows"]}
    assert "other," not in caption(depth, training)


@pytest.mark.parametrize("tokens", [{}, {"last": None}, {"last": 5}, {"last": 5, "start": None}])
def test_fewer_than_two_checkpoints_are_said_in_words(tokens: dict[str, int | None]) -> None:
    training = training_tables(tokens) if tokens else TRAINING.clear()
    for function in (draw, caption):
        with pytest.raises(NotMeasured, match=r"fewer than two .*\(training_tokens "):
            function(DEPTH, training)


def test_what_is_missing_or_beyond_the_axis_is_counted() -> None:
    many = {f"m{n}": 10**n for n in range(3, 11)}
    start = pl.col("model") == "m3"
    depth = depth_table(*many).with_columns(
        from_mlps=pl.when(start).then(float("nan")).otherwise("from_mlps"),
        restored_share=pl.when(start).then(-80.0).otherwise(SHARE),
    )
    spec = spec_of(depth, training_tables(many))
    assert "without a finite value, not drawn: 1" in subtitle(spec)
    assert "1 of 47 points" in subtitle(spec)
    (shares,) = drawn(spec, "point", SHARE)
    assert [row["edge"] for row in shares["rows"]].count("below") == 1


def test_the_caption_names_models_and_how_to_read_it() -> None:
    text = caption(DEPTH, TRAINING)
    for words in (
        "start, early, later and last",
        "resample",
        "1,234 tokens",
        "321 prompts",
        "40,767 targets",
        "0 left of the dashed line",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("depth", "training", "words"),
    [
        (DEPTH.drop("from_norm_low"), TRAINING, "depth table has no column from_norm_low; write"),
        (DEPTH.drop("n_prompts"), TRAINING, "depth table has no column n_prompts; write"),
        (DEPTH, TRAINING.drop(LOSS), f"training table has no column {LOSS}; write"),
        (DEPTH, TRAINING.drop("training_tokens"), "no column training_tokens; write"),
        (DEPTH.filter(ablation="zero"), TRAINING, "no rows with ablation resample.*; run "),
        (DEPTH.filter(model="other"), TRAINING, "no rows with ablation resample.*; run "),
    ],
)
def test_tables_without_their_rows_are_refused(
    depth: pl.DataFrame, training: pl.DataFrame, words: str
) -> None:
    for function in (draw, caption):
        with pytest.raises(InputError, match=f"^E19: .*{words}[^\n]*$"):
            function(depth, training)
