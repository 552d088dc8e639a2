"""E12: the share of the direct effect that heads, MLPs and norms make up for, for all models."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from ..ablations import RESAMPLE
from ..tables.terms import POST_NORMS, models_with_post_norms
from ..vocabulary import QUARTERS, TOP, bounded
from . import words
from .axes import WITHIN, Span, interval_limits, n_cut, placed, share_limits
from .marks import facets, points, rule, whiskers
from .rows import check_columns, models_of, stacked, table_rows, whole_groups
from .theme import AMBER, BLACK, BLUE, GREEN, PINK
from .unmeasured import NOT_WHOLE, unmeasured

POST_NORMS_SHARE = f"{POST_NORMS}_share"
PARTS = {
    "from_heads_share": ("other heads", BLUE),
    "from_mlps_share": ("MLPs", PINK),
    POST_NORMS_SHARE: ("post-norms", AMBER),
    "from_norm_share": ("final norm", GREEN),
    "self_repair_share": ("all self-repair", BLACK),
}
TOTAL = "all self-repair"
TITLE = "What makes up for ablated heads"


def draw(depth: pl.DataFrame) -> alt.FacetChart | alt.Chart:
    """Resample ablation, top tokens, a panel per model.

    Bars per quarter of the layers (ratio of means over their heads) with 95 % bootstrap intervals
    over prompts, a diamond for all of them together. A bar for post-norms only if a model has any, and
    only in its panel. Without a quarter whose heads were all ablated: words that say so.

    Raises:
        InputError: a column is missing, or the table has no such rows.
    """
    whole, others = whole_groups("E12", depth, QUARTERS)
    if whole.is_empty() and others:
        return unmeasured(TITLE, NOT_WHOLE)
    rows, missing = _rows(whole)
    limits = share_limits(interval_limits(rows, "value", keep=0.95))
    y = Span(
        "value", "Share of the direct effect (%)", limits, percent=True, options={"tickCount": 8}
    )
    rows = placed(rows, y=y)
    return words.titled(
        facets(_layers(rows, y), rows, size=(300, 220), by="model"),
        TITLE,
        f"Resample ablation, {words.FROM_TOP_TOKENS}",
        "Share of the direct effect of a quarter's heads; whisker: 95 % interval; diamond: all",
        *words.left_out_groups(others),
        *words.notes(rows, missing=missing, cut=n_cut(rows, y), things="bars"),
    )


def _layers(rows: pl.DataFrame, y: Span) -> list[alt.Chart]:
    drawn = set(rows["part"])
    names, colours = zip(*(part for part in PARTS.values() if part[0] in drawn), strict=True)
    axis = alt.Axis(labelAngle=0, grid=False, labelExpr="replace(datum.label, ' quarter', '')")
    quarter = alt.X("depth:O", title="Quarter of the layers", sort=list(QUARTERS), axis=axis)
    legend = alt.Legend(symbolType="square")
    scale = alt.Scale(domain=list(names), range=list(colours))
    offset = alt.XOffset("part:N", scale=alt.Scale(domain=list(names)))
    place: dict[str, Any] = {"x": quarter, "xOffset": offset}
    look = place | {"color": alt.Color("part:N", title="From", scale=scale, legend=legend)}
    tooltip = [
        *(words.name_tip(column, column.capitalize()) for column in ("model", "depth", "part")),
        words.count_tip("n_heads", "Heads"),
        *words.interval_tip("value", "Share", unit="of 1"),
    ]
    look |= {"y": y.y(), "tooltip": tooltip}
    bars = alt.Chart().mark_bar().encode(**look, y2=alt.datum(0))
    total = alt.Chart().mark_point(filled=True, shape="diamond", size=75, opacity=1).encode(**look)
    beyond = points(rows).mark_point(filled=True, opacity=1, stroke="white", strokeWidth=1)
    return [
        bars.transform_filter(f"datum.part != '{TOTAL}'"),
        rule(y=0.0),
        whiskers(y, color="black", strokeOpacity=1, strokeWidth=1.2).encode(**place),
        total.transform_filter(f"datum.part == '{TOTAL}' && datum.edge == '{WITHIN}'"),
        beyond.encode(**look).transform_filter(f"datum.edge != '{WITHIN}'"),
    ]


def caption(depth: pl.DataFrame) -> str:
    whole, others = whole_groups("E12", depth, QUARTERS)
    if whole.is_empty() and others:
        return NOT_WHOLE
    rows, _ = _rows(whole)
    some = PARTS[POST_NORMS_SHARE][0] in set(rows["part"])
    post_norms = (
        " Post-norms, which scale what a sublayer writes, have a bar in models with any." * some
    )
    return (
        f"What makes up for an ablated attention head, in {words.listed(models_of(rows))} under"
        f" resample ablation, on {words.FROM_LARGEST}:"
        f" {words.sample(rows, unit='quarter')}. {words.REPAIR} Each bar is a part of it as a share of"
        " the heads' direct effect, for a quarter of the model's layers: a ratio of means over the"
        " quarter's heads, so 100 % would restore all that the heads contributed directly and a"
        " negative share adds to the loss. The bars add up to the black diamond; whiskers are 95 %"
        f" bootstrap intervals over prompts.{post_norms}"
        + "".join(f" {line}." for line in words.left_out_groups(others))
    )


def _rows(depth: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """A row per model, quarter and part, and how many of those have no finite share.

    No rows for the post-norms of models without any.
    """
    keys = ("model", "depth", "ablation", "selection", "n_heads", "n_tokens", "n_prompts")
    drawn = (name for part in PARTS for name in bounded(part))
    check_columns("E12", depth, "depth", [*keys, POST_NORMS, *drawn])
    names = {part: name for part, (name, _) in PARTS.items()}
    own = pl.col("model").is_in(models_with_post_norms(depth))
    table = stacked(depth, list(PARTS), *keys)
    table = table.filter(own | (pl.col("quantity") != POST_NORMS_SHARE)).with_columns(
        part=pl.col("quantity").replace_strict(names)
    )
    return table_rows(
        "E12",
        table,
        "depth",
        columns=[*keys, "part", *bounded("value")],
        finite=["value"],
        only={"ablation": [RESAMPLE.name], "selection": [TOP], "depth": QUARTERS},
        one_model=False,
    )
