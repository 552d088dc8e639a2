"""Made up tables from which figures are drawn."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import polars as pl

from selfrepair.tables.terms import POST_NORMS
from selfrepair.vocabulary import QUARTERS, SELECTIONS, SHARED_EFFECTS, TERMS, TOP, bounded

# Exactly 0 in a model without post-norms.
NO_POST_NORMS = [*bounded(POST_NORMS), *bounded(f"{POST_NORMS}_share")]
COUNTS = {"n_prompts": 321, "n_tokens": 1234}


def with_bounds(values: dict[str, float]) -> dict[str, float]:
    """The values, each with an interval around it."""
    low = {f"{name}_low": value - 0.02 for name, value in values.items()}
    return values | low | {f"{name}_high": value + 0.04 for name, value in values.items()}


def heads_table(
    model: str = "toy",
    *,
    layers: int = 4,
    heads: int = 3,
    ablations: tuple[str, ...] = ("resample", "mean", "zero"),
    post_norms: bool = False,
    seed: int = 0,
) -> pl.DataFrame:
    """A heads table with the identities of the method: shares, self_repair and delta_logit add up.

    Direct effects are positive on top tokens and of either sign on all tokens. Without post_norms what
    they make up for is exactly 0.
    """
    draw = np.random.default_rng(seed)
    rows = []
    for ablation in ablations:
        for selection in SELECTIONS:
            for layer in range(layers):
                for head in range(heads):
                    effect = draw.uniform(0.5, 2) if selection == TOP else draw.normal(0, 0.05)
                    row = {"direct_effect": effect, "ablated_direct_effect": 0.1 * effect}
                    row |= {name: draw.normal(0.1, 0.1) for name in TERMS}
                    row[POST_NORMS] *= post_norms
                    row["self_repair"] = sum(row[name] for name in TERMS)
                    row["delta_logit"] = row["self_repair"] - 0.9 * effect
                    row |= {f"{name}_share": row[name] / effect for name in SHARED_EFFECTS}
                    row = with_bounds(row)
                    row |= {} if post_norms else dict.fromkeys(NO_POST_NORMS, 0.0)
                    row |= {
                        f"{name}_share_clipped": draw.uniform(0, 0.5) for name in SHARED_EFFECTS
                    }
                    keys = {"model": model, "ablation": ablation, "selection": selection}
                    keys |= {"layer": layer, "head": head} | COUNTS
                    if selection != TOP:
                        keys["n_tokens"] = 61700
                    rows.append(keys | row)
    return pl.DataFrame(rows)


def two_models() -> pl.DataFrame:
    return pl.concat([heads_table("a"), heads_table("b", layers=3, heads=2, seed=1)])


def change(table: pl.DataFrame, layer: int, head: int, **values: float | None) -> pl.DataFrame:
    """The table with a head's values replaced, in all of its rows."""
    here = (pl.col("layer") == layer) & (pl.col("head") == head)
    return table.with_columns(
        pl.when(here).then(pl.lit(value, dtype=pl.Float64)).otherwise(name).alias(name)
        for name, value in values.items()
    )


def depth_table(*models: str, post_norms: Collection[str] = (), seed: int = 0) -> pl.DataFrame:
    """Quarters of the layers and their second half; the terms' shares add up to self-repair's.

    post_norms: the models that have some.
    """
    draw = np.random.default_rng(seed)
    rows = []
    for model in models:
        for ablation in ("zero", "resample"):
            for selection in SELECTIONS:
                for depth in (*QUARTERS, "second half"):
                    row = {f"{name}_share": draw.uniform(-0.2, 0.4) for name in TERMS}
                    own = model in post_norms
                    row[f"{POST_NORMS}_share"] *= own
                    row["self_repair_share"] = sum(row.values())
                    keys = {"model": model, "ablation": ablation, "selection": selection}
                    # Of heads with a direct effect of 1 logit, of which ablation removes 0.9.
                    row |= {name: row[f"{name}_share"] for name in SHARED_EFFECTS}
                    row["restored_share"] = row["self_repair"] / 0.9
                    row = with_bounds(row)
                    row |= {} if own else dict.fromkeys(NO_POST_NORMS, 0.0)
                    rows.append(keys | {"depth": depth, "n_heads": 9} | COUNTS | row)
    return pl.DataFrame(rows)


def training_tables(tokens: Mapping[str, int | None]) -> pl.DataFrame:
    """A row per model, trained on so many tokens (None: not known), whose loss falls from one to the next."""
    rows = [
        {"model": model, "training_tokens": count, "mean_surprisal": 11.0 - number}
        for number, (model, count) in enumerate(tokens.items())
    ]
    counts = {"n_prompts": 321, "n_tokens": 40767}
    schema = {"training_tokens": pl.Int64}
    return pl.DataFrame([row | counts for row in rows], schema_overrides=schema)
