"""Each claim of the paper beside what was measured of each model, and the verdict. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import polars as pl

from ..ablations import RESAMPLE
from ..errors import InputError
from ..formats import with_interval
from ..tables.terms import POST_NORMS, models_with_post_norms
from ..vocabulary import SECOND_HALF, TOP, bounded
from .claims import CLAIMS, UNDECIDED, Claim, Depth, Summary

VALUE = ("value", "low", "high")
SIZES = ("n_prompts", "n_tokens")
SCHEMA: dict[str, Any] = (
    dict.fromkeys(("model", "control_of", "id", "claim", "source", "measured", "unit"), pl.String)
    | dict.fromkeys((*VALUE, *bounded("clipped")), pl.Float64)
    | dict.fromkeys(SIZES, pl.Int64)
    | dict.fromkeys(("counted", "verdict", "rule", "figure"), pl.String)
)


def judge(
    depth: pl.DataFrame, summaries: pl.DataFrame, controls: Mapping[str, str] | None = None
) -> pl.DataFrame:
    """One row per claim and model, in the order of CLAIMS.

    Args:
        depth: the table by depth (`head_tables`) of all models; summaries: of all experiments.
        controls: of each model that is a control, the one that it is a control of.
    Returns:
        columns model, control_of (null of a model that is no control), id, claim, source, measured, unit,
        value, low, high, clipped (the paper's definition, null where it has none) with its interval,
        n_prompts, n_tokens (`counted` says tokens, or instances: a head on a token), verdict, rule, figure.
    Raises:
        InputError: no model in the tables.
    """
    models = depth["model"].unique(maintain_order=True).to_list()
    if not models:
        raise InputError("claims: the table by depth has no model; run the sweeps first")
    rows = [
        {
            "model": model,
            "control_of": (controls or {}).get(model),
            **_row(claim, depth.filter(model=model), summaries.filter(model=model)),
        }
        for model in models
        for claim in CLAIMS
    ]
    return pl.DataFrame(rows, schema=SCHEMA).with_columns(pl.selectors.float().fill_nan(None))


def _row(claim: Claim, depth: pl.DataFrame, summaries: pl.DataFrame) -> dict[str, Any]:
    """One claim about one model."""
    found = _measured(claim.value, depth, summaries)
    clipped = _measured(claim.clipped, depth, summaries) if claim.clipped else {}
    return {
        "id": claim.id,
        "claim": claim.claim,
        "source": claim.source,
        "measured": claim.measured,
        "unit": claim.unit,
        **found,
        **{name: clipped.get(key) for name, key in zip(bounded("clipped"), VALUE, strict=True)},
        "counted": "tokens" if isinstance(claim.value, Depth) else "instances",
        "verdict": claim.verdict(found["low"], found["high"])
        if math.isfinite(found["value"])
        else UNDECIDED,
        "rule": claim.rule(),
        "figure": claim.figure,
    }


def _measured(
    what: Depth | Summary, depth: pl.DataFrame, summaries: pl.DataFrame
) -> dict[str, float]:
    """A value with its interval and what it rests on; NaN and 0 where nothing was measured."""
    if isinstance(what, Depth):
        rows = depth.filter(ablation=RESAMPLE.name, selection=TOP, depth=what.group)
        columns = bounded(what.column)
    else:
        rows = summaries.filter(
            pl.col("layer").is_null(), experiment=what.experiment, quantity=what.quantity
        )
        rows = rows.tail(1) if what.group is None else rows.filter(group=what.group)
        columns = VALUE
    if rows.is_empty():
        return dict.fromkeys(VALUE, math.nan) | dict.fromkeys(SIZES, 0)
    row = rows.row(0, named=True)
    names = zip((*VALUE, *SIZES), (*columns, *SIZES), strict=True)
    found = {key: row[column] for key, column in names}
    return found | {key: found[key] or 0 for key in SIZES}


def post_norm_notes(depth: pl.DataFrame) -> dict[str, list[str]]:
    """By model, what its post-norms make up for: a term of its own that no claim is about."""
    found = {}
    for model in models_with_post_norms(depth):
        row = _measured(Depth(f"{POST_NORMS}_share"), depth.filter(model=model), pl.DataFrame())
        share = estimate({**row, "unit": "share"})
        found[model] = [
            f"The model's post-norms, which scale what its sublayers write, make up for {share} of the"
            f" direct effect ({SECOND_HALF}): a term of its own, which no claim counts as the final"
            " norm's."
        ]
    return found


def metrics(
    claims: pl.DataFrame, over_models: pl.DataFrame | None = None
) -> dict[str, dict[str, dict[str, Any]]]:
    """The claims as scalars by model and claim, which `dvc metrics show` reads; missing left out.

    over_models: the claims over models, which stand under "all models".
    """
    names = (*VALUE, "verdict", *SIZES)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in claims.iter_rows(named=True):
        found.setdefault(row["model"], {})[row["id"]] = _known(row, names)
    if over_models is not None:
        names = (*VALUE, "verdict", "n_models", "n_supported")
        rows = over_models.iter_rows(named=True)
        found["all models"] = {row["id"]: _known(row, names) for row in rows}
    return found


def _known(row: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: row[name] for name in names if row[name] is not None}


def estimate(row: Mapping[str, Any], *, clipped: bool = False) -> str:
    """A row's value with its interval, "56 % [52, 60]", or "not measured".

    clipped: the value by the paper's own definition instead; nothing without one.
    """
    value, low, high = (row[name] for name in (bounded("clipped") if clipped else VALUE))
    if value is None or math.isnan(value):
        return "" if clipped else "not measured"
    return with_interval(value, low, high, unit=row["unit"])
