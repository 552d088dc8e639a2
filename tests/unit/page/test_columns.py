"""Columns of the page: four digits, text by its levels, and null for whatever is missing."""

import json
import math

import polars as pl
import pytest

from selfrepair.page.columns import columns, rounded


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.057544, 0.0575),
        (-1.23456, -1.235),
        (12345.6, 12350),
        (3.0, 3),
        (0.00004, 0),
        (math.nan, None),
        (math.inf, None),
        (None, None),
    ],
)
def test_numbers_have_four_digits_and_four_places(value, written):
    assert rounded(value) == written


def test_whole_numbers_are_written_without_a_point():
    assert json.dumps(rounded(2.0)) == "2"
    assert json.dumps(rounded(-0.00001)) == "0"


def test_each_kind_of_column_is_written_in_its_own_way():
    table = pl.DataFrame(
        {
            "text": ["b", "a", None, "b"],
            "number": [0.12345, float("nan"), None, 2.0],
            "count": [1, None, 3, 4],
            "which": [True, False, None, True],
        }
    )
    assert columns(table) == {
        "text": {"levels": ["b", "a"], "codes": [0, 1, -1, 0]},
        "number": [0.1235, None, None, 2],
        "count": [1, None, 3, 4],
        "which": [1, 0, None, 1],
    }
    assert list(columns(table.select("count"))) == ["count"]
    assert columns(table.select("number"), places=2)["number"][0] == 0.12
