"""How long a model was trained, and how well it predicts its sample (docs/method.md section 5, E19). No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

SCHEMA = {
    "model": pl.String,
    "training_tokens": pl.Int64,
    "mean_surprisal": pl.Float64,
    "n_prompts": pl.Int32,
    "n_tokens": pl.Int32,
}


def training_table(
    clean: Mapping[str, Any], *, model: str, training_tokens: int | None
) -> pl.DataFrame:
    """One row: the tokens that the model was trained on, and its loss on the whole sample.

    Args:
        clean: what the clean pass wrote of itself, clean.json.
        training_tokens: as the config states it; None, null in the table, if it does not.
    Returns:
        mean_surprisal: of the target token, nats, mean over all positions of the sample; n_tokens: these
        positions. There is no interval: a study need not keep the surprisals of single tokens.
    """
    first, end = clean["prompts"]
    row = {
        "model": model,
        "training_tokens": training_tokens,
        "mean_surprisal": clean["mean_surprisal_nats"],
        "n_prompts": end - first,
        "n_tokens": (end - first) * (clean["tokens_per_prompt"] - 1),
    }
    return pl.DataFrame([row], schema=SCHEMA)
