"""One table for every number of an experiment that has an interval: a row per number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from .bootstrap import interval

SCHEMA: dict[str, Any] = {
    "model": pl.String,
    "experiment": pl.String,
    "quantity": pl.String,
    "layer": pl.Int32,
    "head": pl.Int32,
    "group": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "n_prompts": pl.Int64,
    "n_tokens": pl.Int64,
}


def summary(
    estimates: Float[np.ndarray, " resample"],
    *,
    model: str,
    experiment: str,
    quantity: str,
    n_prompts: int,
    n_tokens: int,
    layer: int | None = None,
    head: int | None = None,
    group: str = "",
) -> dict[str, Any]:
    """A row: the value on the sample (the first estimate) and the 95 % interval of the others."""
    value, low, high = (float(bound[0]) for bound in interval(estimates[:, None]))
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
    """Columns: model, experiment, quantity, layer and head (null: over several), group, value with
    low and high of its 95 % interval, and what it rests on: prompts, and tokens (E3, E4) or
    instances, a head on one of its tokens (E7 to E11)."""
    return pl.DataFrame(list(rows), schema=SCHEMA)
