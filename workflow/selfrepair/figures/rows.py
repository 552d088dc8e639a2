"""The rows that a figure draws, from a study's tables; a table that it cannot draw is refused, and one that was
left empty is told apart from it.

Rows without a finite value are left out, never drawn as 0, and counted, so that the subtitle can say
so. A bound that is missing is null, because JSON has no NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ..ablations import RESAMPLE
from ..errors import InputError
from ..formats import listed
from ..tables.terms import POST_NORMS, models_with_post_norms
from ..vocabulary import SUMMARY_COLUMNS, TOP, bounded

NOT_WHOLE = "Not measured: the sweeps of this study ablated no such group of layers whole (sweep.heads in the config)."
# What tells rows by depth apart, and what they are means over.
DEPTH_KEYS = ("model", "depth", "ablation", "selection", "n_heads", "n_tokens", "n_prompts")


class NotMeasured(Exception):
    """There is nothing to draw, and that is no error; the message says why, and stands in place of panels
    (`drawing`)."""


def table_rows(
    figure: str,
    table: pl.DataFrame,
    name: str,
    *,
    columns: Sequence[str],
    finite: Sequence[str],
    only: Mapping[str, Sequence[str]] | None = None,
    one_model: bool = True,
    empty: str | None = None,
) -> tuple[pl.DataFrame, int]:
    """The rows of a figure's table with finite values, and how many lack one.

    columns: those kept. finite: those that must be finite. only: the values that a column may have;
    rows with another value are not the figure's and do not count as lacking one. empty: why the table may
    have been left without rows.

    Raises:
        NotMeasured: it has none, and may.
        InputError: a column is missing, no row is left, or several models where one is taken.
    """
    only = only or {}
    check_columns(figure, table, name, [*columns, *only])
    if empty and table.is_empty():
        raise NotMeasured(empty)
    rows = table.filter(
        pl.lit(True), *(pl.col(column).is_in(values) for column, values in only.items())
    )
    kept = rows.filter(pl.col(column).cast(pl.Float64).is_finite() for column in finite)
    if kept.is_empty():
        which = [f"{column} {'/'.join(values)}" for column, values in only.items()]
        raise InputError(
            f"{figure}: the {name} table has no rows with"
            f" {listed([*which, 'finite ' + ', '.join(finite)])};"
            " run what it is made from for this model, and on more prompts"
        )
    models = models_of(kept)
    if one_model and len(models) != 1:
        raise InputError(
            f"{figure}: takes one model, got {listed(models)}; filter the {name} table"
        )
    kept = kept.select(columns).with_columns(pl.selectors.float().fill_nan(None))
    return kept, rows.height - kept.height


def head_rows(
    figure: str,
    heads: pl.DataFrame,
    columns: Sequence[str],
    *,
    bounds: Sequence[str] | None = None,
    ablations: Sequence[str] = (RESAMPLE.name,),
    selections: Sequence[str] = (TOP,),
    one_model: bool = False,
) -> tuple[pl.DataFrame, int]:
    """Rows of the heads table, sorted as models, selections and ablations are given, with `depth`, the layer over the model's last layer.

    columns: those drawn, which must be finite. bounds: those of them that have an interval; all, if
    not given. Raises and counts as `table_rows`.
    """
    keys = ("model", "ablation", "selection", "layer", "head", "n_tokens", "n_prompts")
    bounds = columns if bounds is None else bounds
    drawn = [part for name in columns for part in (bounded(name) if name in bounds else (name,))]
    check_columns(figure, heads, "heads", [*keys, *drawn])
    last = pl.col("layer").cast(pl.Int64).max().over("model")
    table = heads.with_columns(depth=pl.when(last > 0).then(pl.col("layer") / last).otherwise(0.0))
    table = table.filter(pl.col("n_tokens").is_not_null())  # heads that were ablated
    rows, missing = table_rows(
        figure,
        table,
        "heads",
        columns=[*keys, "depth", *drawn],
        finite=columns,
        only={"ablation": ablations, "selection": selections},
        one_model=one_model,
    )
    orders = {"model": models_of(heads), "selection": selections, "ablation": ablations}
    groups = [pl.col(name).cast(pl.Enum(values)) for name, values in orders.items()]
    return rows.sort(*groups, "layer", "head"), missing


def depth_rows(
    figure: str, depth: pl.DataFrame, column: str, *keys: str, depths: Sequence[str]
) -> tuple[pl.DataFrame, int, list[str]]:
    """Rows of a table by depth, of resample ablation and top tokens, in these groups of layers, with the
    column, its interval and further `keys`; how many lack a value; the groups that are left out, because not
    every head of theirs was ablated.

    Raises:
        NotMeasured: no group is left.
        InputError: as `table_rows`.
    """
    columns = [*DEPTH_KEYS, *keys, *bounded(column)]
    check_columns(figure, depth, "depth", columns)
    groups = depth.filter(pl.col("depth").is_in(depths))
    whole = pl.col("n_tokens").is_not_null()
    left_out = groups.filter(~whole)["depth"].unique(maintain_order=True).to_list()
    if left_out and groups.filter(whole).is_empty():
        raise NotMeasured(NOT_WHOLE)
    rows, missing = table_rows(
        figure,
        groups.filter(whole),
        "depth",
        columns=columns,
        finite=[column],
        only={"ablation": [RESAMPLE.name], "selection": [TOP]},
        one_model=False,
    )
    return rows, missing, left_out


def part_rows(
    figure: str, depth: pl.DataFrame, parts: Mapping[str, str], *keys: str, depths: Sequence[str]
) -> tuple[pl.DataFrame, int, list[str]]:
    """`depth_rows` of several columns, a row for each: `part`, its name, and `value`, with its interval.

    parts: the names, by column. No rows for the post-norms of models without any.
    """
    drawn = [end for column in parts for end in bounded(column)]
    check_columns(figure, depth, "depth", [*DEPTH_KEYS, *keys, POST_NORMS, *drawn])
    rows = stacked(depth, list(parts), *DEPTH_KEYS, *keys)
    own = pl.col("model").is_in(models_with_post_norms(depth))
    rows = rows.filter(own | ~pl.col("quantity").str.starts_with(POST_NORMS))
    rows = rows.with_columns(part=pl.col("quantity").replace_strict(parts))
    return depth_rows(figure, rows, "value", *keys, "part", depths=depths)


def summary_rows(
    figure: str, summaries: pl.DataFrame, model: str, *, experiment: str, quantity: str
) -> pl.DataFrame:
    """One model's estimates of a quantity.

    Raises:
        InputError: a column is missing, or the table has no such rows.
    """
    check_columns(figure, summaries, "summaries", SUMMARY_COLUMNS)
    wanted = summaries.filter(model=model, experiment=experiment, quantity=quantity)
    if wanted.is_empty():
        raise InputError(
            f"{figure}: the summaries table has no {quantity} of experiment {experiment} for"
            f" {model}; write both tables in one run of the experiment"
        )
    return wanted.with_columns(pl.selectors.float().fill_nan(None))


def estimate(summary: pl.DataFrame, **keys: Any) -> Mapping[str, Any] | None:
    """The only row with these keys; None where there is none or it has no value."""
    rows = summary.filter(**keys).drop_nulls("value").to_dicts()
    return rows[0] if rows else None


def check_columns(figure: str, table: pl.DataFrame, name: str, columns: Sequence[str]) -> None:
    """Raises InputError with the columns that the table lacks."""
    missing = [column for column in dict.fromkeys(columns) if column not in table.columns]
    if missing:
        raise InputError(
            f"{figure}: the {name} table has no column {', '.join(missing)};"
            " write it with this version of the workflow"
        )


def models_of(rows: pl.DataFrame) -> list[str]:
    """The models, in the order in which the study names them."""
    return rows["model"].unique(maintain_order=True).to_list()


def heads_of(rows: pl.DataFrame, *keys: str) -> list[dict[str, Any]]:
    """The heads, in order, as layer and head; `keys` split them further."""
    names = ["layer", "head", *keys]
    return rows.select(names).unique().sort(names).to_dicts()


def count_of(rows: pl.DataFrame, name: str) -> int:
    """Number of layers or heads, from the largest index."""
    return int(rows[name].cast(pl.Int64).max()) + 1  # type: ignore[arg-type]


def layer_means(rows: pl.DataFrame, column: str, *keys: str) -> pl.DataFrame:
    """Unweighted mean over the heads of a layer, per `keys`."""
    names = [*keys, "layer"]
    means = rows.group_by(names, maintain_order=True).agg(pl.col(column).mean())
    return means.sort("layer", maintain_order=True)


def stacked(rows: pl.DataFrame, columns: Sequence[str], *keys: str) -> pl.DataFrame:
    """A row per column of each row: `quantity`, the column's name, and `value` with its interval."""
    values = [
        [
            pl.col(old).cast(pl.Float64).alias(new)
            for old, new in zip(bounded(column), bounded("value"), strict=True)
        ]
        for column in columns
    ]
    return pl.concat(
        rows.select(*keys, pl.lit(column).alias("quantity"), *ends)
        for column, ends in zip(columns, values, strict=True)
    )
