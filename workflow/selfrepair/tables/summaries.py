"""One table for every number of an experiment that has an interval: a row per number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from ..vocabulary import SUMMARY_COLUMNS
from .bootstrap import interval

SCHEMA: dict[str, Any] = (
    dict.fromkeys(SUMMARY_COLUMNS, pl.String)
    | dict.fromkeys(("layer", "head"), pl.Int32)
    | dict.fromkeys(("value", "low", "high"), pl.Float64)
    | dict.fromkeys(("n_prompts", "n_tokens"), pl.Int64)
)


def summary(
    estimates: Float[np.ndarray, " resample"],
    *,
    model: str,
    experiment: str,
    quantity: str,
    n_prompts: int,
    n_tokens: int | None,
    layer: int | None = None,
    head: int | None = None,
    group: str = "",
) -> dict[str, Any]:
    """A row: the value on the sample (the first estimate) and the 95 % interval of the others; n_prompts:
    in how many different prompts the value's tokens lie."""
    value, low, high = map(float, interval(estimates, prompts=n_prompts))
    return {
        "model": model,
        "experiment": experiment,
        "quantity": quantity,
        "layer": layer,
        "head": head,
        "group": group,
        "value": value,
        "low": low,
        "high": high,
        "n_prompts": n_prompts,
        "n_tokens": n_tokens,
    }


def summary_table(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """The table of these rows, with SUMMARY_COLUMNS.

    layer, head: null for a number over several. value, low, high: with its 95 % interval.
    n_tokens: of E3 and E4 tokens; of E7 to E11 instances, a head on one of its tokens; null where prompts are
    looked at everywhere.
    """
    return pl.DataFrame(list(rows), schema=SCHEMA)
