"""Columns that say of all rows of a table what they are about and what they rest on."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl


def labelled(
    table: pl.DataFrame, keys: Mapping[str, str | int], counts: Mapping[str, int] | None = None
) -> pl.DataFrame:
    """The table with one constant column for each key in front and for each count behind.

    Whole numbers are written as 32-bit integers, as layers and heads are everywhere.
    """

    def columns(values: Mapping[str, str | int]) -> list[pl.Expr]:
        return [
            pl.lit(value, dtype=pl.String if isinstance(value, str) else pl.Int32).alias(name)
            for name, value in values.items()
        ]

    return table.select(*columns(keys), pl.all(), *columns(counts or {}))
