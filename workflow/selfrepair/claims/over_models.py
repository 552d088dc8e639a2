"""The claims over the models of a study: how many models support each, and values of all models together.

Controls are left out. What is said over models is about these models: an interval covers that the value of
each was measured on a sample of prompts, not that other models might have been chosen. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from ..ablations import RESAMPLE
from ..vocabulary import TOP, bounded
from .claims import (
    CLAIMS_OVER_MODELS,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
    ClaimOverModels,
    PooledShare,
    SlopeOnSize,
    Smallest,
)
from .judge import VALUE
from .study_models import StudyModel

# How many models support a claim about each.
ON_ALL, ON_SOME, ON_NONE = "supported on all", "supported on some", "supported on none"
TALLY_RULE = (
    "supported on all models of the study that are no controls, on some of them or on none; on each model by"
    " the claim's own rule"
)
COUNTS = {
    "n_supported": SUPPORTED,
    "n_undecided": UNDECIDED,
    "n_not_supported": NOT_SUPPORTED,
}
SCHEMA: dict[str, Any] = (
    dict.fromkeys(("id", "claim", "source", "measured", "unit"), pl.String)
    | dict.fromkeys(VALUE, pl.Float64)
    | dict.fromkeys(("n_models", *COUNTS), pl.Int64)
    | dict.fromkeys(("verdict", "rule", "remark", "figure"), pl.String)
)
# With fewer models than this a trend over them is weak evidence, and the remark says so.
FEW_MODELS = 6
# Draws of the models' values, and orders of so many models at most that are all counted, not drawn.
DRAWS, SEED, MOST_ORDERED = 10_000, 0, 8
NORMAL_97_5 = 1.959964

Values = Float[np.ndarray, " model"]


def judge_over_models(
    claims: pl.DataFrame, depth: pl.DataFrame, models: Sequence[StudyModel]
) -> pl.DataFrame:
    """A row per claim: those of CLAIMS_OVER_MODELS with a value of their own, then a tally of each of CLAIMS.

    Args:
        claims: of `judge.judge`; depth: the table by depth of all models; models: of the study.
    Returns:
        columns id, claim, source, measured, unit, value, low, high (null in a tally), n_models (without
        controls, and of a value without models that lack what it needs), n_supported, n_undecided,
        n_not_supported (null of a value), verdict, rule, remark (what else is to be known), figure.
    """
    own = {model.title: model for model in models if model.control_of is None}
    top = depth.filter(pl.col("model").is_in([*own]), ablation=RESAMPLE.name, selection=TOP)
    rows = [_row(claim, top, own) for claim in CLAIMS_OVER_MODELS]
    counted = claims.filter(pl.col("model").is_in([*own]))
    rows += [_tally(each) for _, each in counted.group_by("id", maintain_order=True)]
    return pl.DataFrame(rows, schema=SCHEMA)


def _tally(rows: pl.DataFrame) -> dict[str, Any]:
    """How many models support a claim; rows: its row of each model."""
    counts = {name: rows.filter(verdict=verdict).height for name, verdict in COUNTS.items()}
    supported = counts["n_supported"]
    verdict = ON_ALL if supported == rows.height else ON_SOME if supported else ON_NONE
    first = rows.row(0, named=True)
    kept = ("id", "claim", "source", "measured", "unit", "figure")
    judged = {"n_models": rows.height, "verdict": verdict, "rule": TALLY_RULE, "remark": ""}
    return {name: first[name] for name in kept} | dict.fromkeys(VALUE) | counts | judged


def _row(
    claim: ClaimOverModels, top: pl.DataFrame, models: Mapping[str, StudyModel]
) -> dict[str, Any]:
    """A claim with a value of its own; top: top tokens, resample ablation, models without controls."""
    rows = _measured(claim, top, models)
    row: dict[str, Any] = {
        **{name: getattr(claim, name) for name in ("id", "claim", "source", "measured", "unit")},
        **dict.fromkeys((*VALUE, *COUNTS)),
        "n_models": rows.height,
        "rule": claim.rule(),
        "figure": claim.figure,
    }
    if rows.height < claim.needs:
        sized = " of known size" * isinstance(claim.value, SlopeOnSize)
        remark = f"needs at least {claim.needs} models{sized} that are no controls; there are {rows.height}"
        return row | {"verdict": UNDECIDED, "remark": remark.replace("are 1", "is 1")}
    if isinstance(claim.value, SlopeOnSize) and rows["size"].n_unique() == 1:
        return row | {"verdict": UNDECIDED, "remark": "all models have one size"}
    values, low, high = (rows[name].to_numpy() for name in bounded(claim.value.column))
    chance = None
    if isinstance(claim.value, Smallest):
        found = (values.min(), low.min(), high.min())
        remark = f"smallest in {rows['model'][int(values.argmin())]}"
    elif isinstance(claim.value, SlopeOnSize):
        sizes = rows["size"].to_numpy()
        found = _with_interval(slope_on(sizes, values), slope_on(sizes, drawn(values, low, high)))
        correlation, chance = rank_agreement(sizes, values)
        remark = _trend_remark(rows.height, correlation, chance)
    else:
        found = _pooled(rows, values, drawn(values, low, high))
        remark = f"{rows['n_heads'].sum()} heads of {rows.height} models, each head counts once"
    left_out = [title for title in models if title not in set(rows["model"])]
    remark += f"; left out: {', '.join(left_out)}" * bool(left_out)
    ends = dict(zip(VALUE, map(float, found), strict=True))
    verdict = claim.judged(ends["low"], ends["high"], chance=chance)
    if not np.isfinite(ends["value"]):
        verdict = UNDECIDED
    if isinstance(claim.value, Smallest) and left_out and verdict == SUPPORTED:
        verdict = UNDECIDED  # that one may be the smallest
    return row | ends | {"verdict": verdict, "remark": remark}


def _measured(
    claim: ClaimOverModels, top: pl.DataFrame, models: Mapping[str, StudyModel]
) -> pl.DataFrame:
    """The rows by depth that a claim's value is made of, a model each, with its `size`, the decimal logarithm
    of its parameters; without models that lack a number that the claim needs."""
    needed = [*bounded(claim.value.column)]
    needed += [*bounded("direct_effect")] if isinstance(claim.value, PooledShare) else []
    needed += ["size"] if isinstance(claim.value, SlopeOnSize) else []
    sizes = {title: model.parameters for title, model in models.items()}
    size = pl.col("model").replace_strict(sizes, default=None, return_dtype=pl.Float64).log10()
    rows = top.filter(depth=claim.value.group).with_columns(size=size)
    return rows.filter(pl.col(name).is_finite() for name in needed)


def drawn(
    values: Values, low: Values, high: Values, *, seed: int = SEED
) -> Float[np.ndarray, "draw model"]:
    """Draws of the models' values, each independent of the others, from its own 95 % interval.

    Two halves of a normal distribution joined at the value: its 2.5, 50 and 97.5 % points are the lower
    end, the value and the upper end. The bootstrap's resamples themselves are not kept beyond a model.
    """
    z = np.random.default_rng(seed).standard_normal((DRAWS, len(values)))
    above, below = np.maximum(high - values, 0), np.maximum(values - low, 0)
    return np.asarray(values + z / NORMAL_97_5 * np.where(z > 0, above, below))


def slope_on(sizes: Values, values: Float[np.ndarray, "*draw model"]) -> Float[np.ndarray, "*draw"]:
    """Least squares slope of values on sizes; NaN if all models have one size."""
    centred = sizes - sizes.mean()
    spread = (centred**2).sum()
    return np.asarray(values @ centred / (spread if spread > 0 else np.nan))


def rank_agreement(sizes: Values, values: Values) -> tuple[float, float]:
    """Spearman's rank correlation, and the share of all orders of the models with one at least as high.

    Orders of more than MOST_ORDERED models are drawn at random, and the one found counts with them.
    """
    x, y = (pl.Series(each).rank("average").to_numpy() for each in (sizes, values))
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x**2).sum() * (y**2).sum())
    if norm == 0:
        return float("nan"), 1.0
    all_orders = len(x) <= MOST_ORDERED
    if all_orders:
        orders = np.array([*permutations(y)])
    else:
        orders = np.random.default_rng(SEED).permuted(np.tile(y, (DRAWS, 1)), axis=1)
    correlation = x @ y / norm
    reached = orders @ x / norm >= correlation - 1e-9
    return float(correlation), float(
        reached.mean() if all_orders else (reached.sum() + 1) / (DRAWS + 1)
    )


def _pooled(
    rows: pl.DataFrame, values: Values, draws: Float[np.ndarray, "draw model"]
) -> tuple[float, float, float]:
    """Sum over all heads of what is restored by the sum of their direct effects, with its interval."""
    effect, low, high = (rows[name].to_numpy() for name in bounded("direct_effect"))
    heads = rows["n_heads"].to_numpy()
    weight, weights = heads * effect, heads * drawn(effect, low, high, seed=SEED + 1)
    value = (weight * values).sum() / weight.sum()
    return _with_interval(value, (weights * draws).sum(1) / weights.sum(1))


def _with_interval(
    value: float | Float[np.ndarray, ""], draws: Float[np.ndarray, " draw"]
) -> tuple[float, float, float]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(value), float(low), float(high)


def _trend_remark(models: int, correlation: float, chance: float) -> str:
    """How far the models' order agrees with their sizes, and what so few models can show."""
    orders = "all" if models <= MOST_ORDERED else f"{DRAWS:,} random"
    ranks = "no rank correlation, all values are equal"
    if not np.isnan(correlation):
        ranks = (
            f"rank correlation {correlation:.2f}, reached by {100 * chance:.0f} % of {orders} orders of"
            f" the {models} models"
        )
    weak = f"; {models} models are weak evidence" * (models < FEW_MODELS)
    only = "; three models can speak against growth, not for it" * (models == 3)
    return f"{ranks}{weak}{only}; the interval says nothing of models that were not measured"
