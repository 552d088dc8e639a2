"""The per-head numbers that the paper's authors released, set against those of a study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float

from ..ablations import RESAMPLE
from ..errors import InputError
from ..tables.bootstrap import divide, interval, prompt_weights
from ..vocabulary import BOUNDS, TOP, bounded
from .fetch import QUANTITIES

# Fewer heads than this have a line and a correlation, but none that means anything.
FEWEST_HEADS = 3

# Released tables by quantity, a key of QUANTITIES.
Published = Mapping[str, Float[torch.Tensor, "layer head"]]


def compare(
    heads: pl.DataFrame, tables: Published, *, seed: int, resamples: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A study's heads against the released numbers of the same model, and how well they agree.

    Args:
        heads: the table of heads of one model (`head_tables`); resample ablation and top tokens are
            taken, as the authors did.
        tables: [layer, head] by quantity of the released files (keys of QUANTITIES). With the three
            that `self_repair` is made of (docs/method.md section 2) it is compared too.
        seed, resamples: of the bootstrap over heads.
    Returns:
        comparison: a row per (model, quantity, layer, head) with `published`, `measured`,
        `measured_low`, `measured_high`, in logits or shares of 0..1; `quantity` is our column's
        name; null bounds where the column has no interval.
        summary: a row per quantity. Differences are measured less published, over the `n_heads`
        that have both values (`n_dropped` have not). `slope` and `intercept` are least squares of
        measured on published; `_low` and `_high` are 95 % intervals over heads, which say how much
        hangs on single heads, not how noisy a head is. `within_interval` is the share of heads
        whose published value lies in our interval over prompts. NaN where undefined.
    Raises:
        InputError: no such rows, more than one model, no or unknown quantities, or another shape.
    """
    names = _columns(tables)
    rows, model = _measured(heads, [*names.values(), "self_repair"])
    shape = (rows["layer"].n_unique(), rows["head"].n_unique())
    for name, table in tables.items():
        if tuple(table.shape) != shape:
            raise InputError(
                f"{model}: published {name} has shape {_shape(table.shape)} (layers x heads), the"
                f" study {_shape(shape)}; compare tables of the same model"
            )
    values = {names[name]: table.double().flatten().numpy() for name, table in tables.items()}
    values |= _self_repair(values)
    paired = [_paired(rows, column, published) for column, published in values.items()]
    summary = [_agreement(each, seed=seed, resamples=resamples) for each in paired]
    return pl.concat(paired), pl.DataFrame(summary, schema=_SUMMARY_SCHEMA)


def agreement_metrics(agreement: pl.DataFrame) -> dict[str, dict[str, float]]:
    """The agreement as scalars by quantity, which `dvc metrics show` reads; missing left out."""
    names = ("correlation", "slope", "mean_difference", "largest_difference", "within_interval")
    return {
        row["quantity"]: {
            name: row[name] for name in names if row[name] is not None and np.isfinite(row[name])
        }
        for row in agreement.iter_rows(named=True)
    }


def _columns(tables: Published) -> dict[str, str]:
    unknown = [name for name in tables if name not in QUANTITIES]
    if unknown or not tables:
        raise InputError(
            f"published: {', '.join(unknown) or 'nothing'} to compare;"
            f" take tables of {', '.join(QUANTITIES)}"
        )
    return {name: QUANTITIES[name] for name in tables}


def _measured(heads: pl.DataFrame, columns: list[str]) -> tuple[pl.DataFrame, str]:
    """The rows that the released tables are about, in their order, and the model's name."""
    needed = ["model", "ablation", "selection", "layer", "head", *columns]
    missing = [name for name in needed if name not in heads.columns]
    if missing:
        raise InputError(f"published: the heads table has no column {', '.join(missing)}")
    rows = heads.filter(ablation=RESAMPLE.name, selection=TOP).sort("layer", "head")
    models = rows["model"].unique(maintain_order=True).to_list()
    if len(models) != 1:
        raise InputError(
            f"published: takes {RESAMPLE.title} on top tokens of one model, the heads table has"
            f" {', '.join(models) or 'none'}; run the sweep with it or choose a model"
        )
    layers, n_heads = rows["layer"].n_unique(), rows["head"].n_unique()
    if rows.select("layer", "head").n_unique() != rows.height or rows.height != layers * n_heads:
        raise InputError(
            f"{models[0]}: the heads table has {rows.height} rows for {layers} layers x {n_heads}"
            " heads; write it again with the decomposition"
        )
    return rows, str(models[0])


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


def _self_repair(
    values: Mapping[str, Float[np.ndarray, " head"]],
) -> dict[str, Float[np.ndarray, " head"]]:
    """Published self-repair, which has no file: delta_logit less the change of the direct effect."""
    names = ("delta_logit", "ablated_direct_effect", "direct_effect")
    if any(name not in values for name in names):
        return {}
    delta_logit, ablated, clean = (values[name] for name in names)
    return {"self_repair": delta_logit - (ablated - clean)}


def _paired(rows: pl.DataFrame, column: str, published: Float[np.ndarray, " head"]) -> pl.DataFrame:
    """Both values of one quantity, a row per head; a missing value is NaN."""
    nothing = pl.lit(None, dtype=pl.Float64)
    ends = {end: f"{column}_{end}" for end in BOUNDS}
    bounds = {
        f"measured_{end}": pl.col(name) if name in rows.columns else nothing
        for end, name in ends.items()
    }
    return rows.select(
        pl.col("model"),
        pl.lit(column).alias("quantity"),
        pl.col("layer").cast(pl.Int32),
        pl.col("head").cast(pl.Int32),
        pl.Series("published", published),
        pl.col(column).cast(pl.Float64).fill_null(float("nan")).alias("measured"),
        *(bound.cast(pl.Float64).alias(name) for name, bound in bounds.items()),
    )


_SUMMARY_SCHEMA = (
    dict.fromkeys(("model", "quantity"), pl.String)
    | dict.fromkeys(("n_heads", "n_dropped"), pl.Int32)
    | dict.fromkeys((*bounded("correlation"), *bounded("slope"), "intercept"), pl.Float64)
    | dict.fromkeys(("mean_difference", "largest_difference"), pl.Float64)
    | dict.fromkeys(("largest_layer", "largest_head"), pl.Int32)
    | {"within_interval": pl.Float64}
)


def _agreement(pairs: pl.DataFrame, *, seed: int, resamples: int) -> dict[str, Any]:
    """One row of the summary, from the rows of one quantity."""
    both = pairs.filter(pl.col("published").is_finite() & pl.col("measured").is_finite())
    row: dict[str, Any] = dict(pairs.select("model", "quantity").row(0, named=True))
    row |= {"n_heads": both.height, "n_dropped": pairs.height - both.height}
    row |= _line(both["published"].to_numpy(), both["measured"].to_numpy(), seed, resamples)
    row |= dict.fromkeys(("mean_difference", "largest_difference"), float("nan"))
    if both.height:
        difference = both["measured"] - both["published"]
        worst = int(np.argmax(difference.abs().to_numpy()))
        row["mean_difference"] = float(difference.to_numpy().mean())
        row["largest_difference"] = abs(difference[worst])
        row |= {f"largest_{key}": both[key][worst] for key in ("layer", "head")}
    row["within_interval"] = _within(both)
    return row


def _within(both: pl.DataFrame) -> float | None:
    """Share of heads whose published value lies in our interval; None without intervals."""
    low, high = pl.col("measured_low"), pl.col("measured_high")
    bounded = both.filter(low.is_finite() & high.is_finite())
    if not bounded.height:
        return None
    return bounded.filter(pl.col("published").is_between(low, high)).height / bounded.height


def _line(
    published: Float[np.ndarray, " head"],
    measured: Float[np.ndarray, " head"],
    seed: int,
    resamples: int,
) -> dict[str, float]:
    """Correlation and least squares of measured on published, with bootstrap intervals over heads."""
    columns = (*bounded("correlation"), *bounded("slope"))
    if len(published) < FEWEST_HEADS:
        return dict.fromkeys((*columns, "intercept"), float("nan"))
    weights = prompt_weights(len(published), resamples, seed=seed)  # here of heads
    *fits, intercept = _fits(weights, published, measured)
    numbers = [float(number) for fit in fits for number in interval(fit)]
    return dict(zip(columns, numbers, strict=True)) | {"intercept": float(intercept[0])}


def _fits(
    weights: Float[np.ndarray, "resample head"],
    x: Float[np.ndarray, " head"],
    y: Float[np.ndarray, " head"],
) -> tuple[Float[np.ndarray, " resample"], ...]:
    """Correlation, slope and intercept of y on x in every resample; NaN where x or y is constant."""
    total = weights.sum(1)
    mean_x, mean_y = weights @ x / total, weights @ y / total
    from_x, from_y = x - mean_x[:, None], y - mean_y[:, None]
    spread_x, spread_y = (
        _spread((weights * off**2).sum(1), values) for off, values in ((from_x, x), (from_y, y))
    )
    shared = (weights * from_x * from_y).sum(1)
    slope = divide(shared, spread_x)
    return divide(shared, np.sqrt(spread_x * spread_y)), slope, mean_y - slope * mean_x


def _spread(
    squares: Float[np.ndarray, " resample"], values: Float[np.ndarray, " head"]
) -> Float[np.ndarray, " resample"]:
    """Sums of squared deviations, exactly 0 where they are only the rounding of a constant."""
    return np.where(squares > 1e-24 * np.square(values).sum(), squares, 0.0)
