"""Tables as JSON, a column at a time, with no more digits than a reader can use."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

# Digits of a number, and places after the point: 0.05754 logits is written 0.0575.
DIGITS, PLACES = 4, 4

Columns = dict[str, Any]


def columns(table: pl.DataFrame, *, places: int = PLACES) -> Columns:
    """The columns of a table by name.

    Numbers are lists, with null for what is missing: NaN and infinity too, which JSON does not have. Text is
    {"levels": its different values, "codes": the place of each row's among them, -1 for null}.
    """
    return {name: _column(table[name], places) for name in table.columns}


def rounded(value: float | None, places: int = PLACES) -> float | int | None:
    """A number to `DIGITS` digits and `places` places; None if it is missing or not finite."""
    if value is None or not math.isfinite(value):
        return None
    size = math.floor(math.log10(abs(value))) if value else 0
    short = round(value, min(places, DIGITS - 1 - size))
    return int(short) if short == int(short) else short


def _column(column: pl.Series, places: int) -> Any:
    if column.dtype == pl.String:
        levels = column.drop_nulls().unique(maintain_order=True).to_list()
        place = {level: at for at, level in enumerate(levels)}
        return {"levels": levels, "codes": [place.get(value, -1) for value in column]}
    if column.dtype == pl.Boolean:
        return column.cast(pl.Int8).to_list()
    if column.dtype.is_float():
        return [rounded(value, places) for value in column]
    return column.to_list()
