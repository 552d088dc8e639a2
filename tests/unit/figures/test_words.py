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
