"""Words around charts."""

from __future__ import annotations

import polars as pl
import pytest

from selfrepair.figures import words
from selfrepair.figures.axes import Span, placed


def test_names_are_listed() -> None:
    assert words.listed(["a"]) == "a"
    assert words.listed(["a", "b"]) == "a and b"
    assert words.listed(["a", "b", "c"]) == "a, b and c"


@pytest.mark.parametrize(
    ("heads", "want"),
    [
        ([(2, 1)], "head L2H1"),
        ([(2, 1), (2, 1)], "head L2H1"),
        ([(2, 1), (3, 0)], "heads L2H1 and L3H0"),
    ],
)
def test_heads_are_named(heads: list[tuple[int, int]], want: str) -> None:
    assert words.named_heads([{"layer": layer, "head": head} for layer, head in heads]) == want


def test_amounts_are_a_number_or_a_range() -> None:
    assert words.amount(pl.Series([1234, 1234])) == "1,234"
    assert words.amount(pl.Series([1234, 200])) == "200 to 1,234"


def test_a_sample_has_tokens_and_prompts() -> None:
    rows = pl.DataFrame({"n_tokens": [200, 1234], "n_prompts": [321, 321]})
    assert words.sample(rows) == "200 to 1,234 tokens per head, 321 prompts"
    tokens = pl.DataFrame({"layer": [0, 0, 0], "head": [0, 0, 1], "prompt": [5, 6, 6]})
    assert words.tokens_per_head(tokens) == "1 to 2 tokens per head, 2 prompts"


def test_an_estimate_is_written_with_its_interval() -> None:
    row = {"value": 0.565, "low": 0.53, "high": 0.6}
    assert words.estimated(row) == "56 % [53, 60]"
    assert words.estimated(row | {"low": None}) == "56 %"
    assert words.estimated(None) == words.estimated(row | {"value": None}) == "not estimated"


def test_notes_say_only_what_there_is_to_say() -> None:
    points = placed(pl.DataFrame({"y": [0.5, 7.0]}), y=Span("y", "Y", (0.0, 1.0)))
    assert words.notes(points.head(1), missing=0) == []
    assert words.notes(points, missing=1234, cut=3, things="bars") == [
        "Beyond the axes, triangles at the edge: 1 of 2 bars",
        "Interval bars cut at the axis: 3",
        "Rows of the table without a finite value, not drawn: 1,234",
    ]


def test_notes_of_panels_are_those_of_all() -> None:
    y, z = Span("y", "Y", (0.0, 1.0)), Span("z", "Z", (0.0, 1.0))
    bars = {"y_low": [0.1, 0.2], "y_high": [0.9, 2.0]}
    first = placed(pl.DataFrame({"y": [0.5, 0.5]} | bars), y=y)
    second = placed(pl.DataFrame({"z": [7.0]}), y=z)
    beyond = "Beyond the axes, triangles at the edge: 1 of 3 points"
    cut = "Interval bars cut at the axis: 1"
    assert words.notes_of([(first, y), (second, z)], missing=0) == [beyond, cut]
    assert words.notes_of([(first, y), (second, z)], missing=0, bars=False) == [beyond]


def test_a_tooltip_is_made_of_the_columns_of_the_rows() -> None:
    rows = pl.DataFrame(
        {"model": ["a"], "n_tokens": [9], "self_repair": [0.5], "share": [0.5]}
        | {"self_repair_low": [0.4], "self_repair_high": [0.6]}
    )
    lines = [tip.to_dict() for tip in words.tips(rows, *rows.columns[:3], share="Share (%)")]
    assert [(line["field"], line["title"], line.get("format")) for line in lines] == [
        ("model", "Model", None),
        ("n_tokens", "Tokens", ",d"),
        ("self_repair", "Self-repair (logits)", ".3f"),
        ("self_repair_low", "Self-repair (95 % low)", ".3f"),
        ("self_repair_high", "Self-repair (95 % high)", ".3f"),
        ("share", "Share (%)", ".1%"),
    ]
    assert [line["type"] for line in lines] == ["nominal", *["quantitative"] * 5]
