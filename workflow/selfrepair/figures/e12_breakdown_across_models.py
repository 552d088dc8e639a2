"""E12: the share of the direct effect that heads, MLPs and norms make up for, for all models."""

from __future__ import annotations

import altair as alt
import polars as pl

from ..tables.terms import POST_NORMS, models_with_post_norms
from ..vocabulary import QUARTERS, bounded
from . import marks, words
from .axes import WITHIN, placed, share_axis
from .rows import DEPTH_KEYS, check_columns, depth_rows, models_of, stacked, whole_groups
from .unmeasured import NOT_WHOLE, unmeasured

PARTS = {f"{name}_share": part for name, (part, _) in marks.PARTS.items()}
TITLE = "What makes up for ablated heads"
TOTAL = PARTS["self_repair_share"]


def draw(depth: pl.DataFrame) -> alt.FacetChart | alt.Chart:
    """Resample ablation, top tokens, a panel per model.

    Bars per quarter of the layers (ratio of means over their heads) with 95 % bootstrap intervals
    over prompts, a diamond for all of them together. A bar for post-norms only if a model has any, and
    only in its panel. Without a quarter whose heads were all ablated: words that say so.
    """
    whole, others = whole_groups("E12", depth, QUARTERS)
    if whole.is_empty() and others:
        return unmeasured(TITLE, NOT_WHOLE)
    rows, missing = _rows(whole)
    y = share_axis(rows, "value", "Share of the direct effect (%)", keep=0.95)
    rows, inks = placed(rows, y=y), marks.part_inks(rows)
    axis = alt.Axis(labelAngle=0, grid=False, labelExpr="replace(datum.label, ' quarter', '')")
    place: marks.Look = {
        "x": alt.X("depth:O", title="Quarter of the layers", sort=list(QUARTERS), axis=axis),
        "xOffset": alt.XOffset("part:N", scale=alt.Scale(domain=list(inks))),
    }
    look: marks.Look = place | {
        "y": y.y(),
        "color": marks.inks("part", "From", inks, legend=alt.Legend(symbolType="square")),
        "tooltip": words.tips(rows, "model", "depth", "part", "n_heads", value="Share (of 1)"),
    }
    total = alt.Chart().mark_point(filled=True, shape="diamond", size=75, opacity=1)
    beyond = marks.points(rows).mark_point(filled=True, opacity=1, stroke="white", strokeWidth=1)
    layers = [
        alt.Chart()
        .mark_bar()
        .encode(**look, y2=alt.datum(0))
        .transform_filter(f"datum.part != '{TOTAL}'"),
        marks.rule(y=0.0),
        marks.whiskers(y, color="black", strokeOpacity=1, strokeWidth=1.2).encode(**place),
        total.encode(**look).transform_filter(
            f"datum.part == '{TOTAL}' && datum.edge == '{WITHIN}'"
        ),
        beyond.encode(**look).transform_filter(f"datum.edge != '{WITHIN}'"),
    ]
    return words.titled(
        marks.facets(layers, rows, size=(300, 220), by="model"),
        TITLE,
        f"Resample ablation, {words.FROM_TOP_TOKENS}",
        "Share of the direct effect of a quarter's heads; whisker: 95 % interval; diamond: all",
        *words.left_out_groups(others),
        *words.notes(rows, y, missing=missing, things="bars"),
    )


def caption(depth: pl.DataFrame) -> str:
    whole, others = whole_groups("E12", depth, QUARTERS)
    if whole.is_empty() and others:
        return NOT_WHOLE
    rows, _ = _rows(whole)
    some = PARTS[f"{POST_NORMS}_share"] in set(rows["part"])
    what = " Post-norms, which scale what a sublayer writes, have a bar in models with any." * some
    return (
        f"What makes up for an ablated attention head, in {words.listed(models_of(rows))} under"
        f" resample ablation, on {words.FROM_LARGEST}:"
        f" {words.sample(rows, unit='quarter')}. {words.REPAIR} Each bar is a part of it as a share of"
        " the heads' direct effect, for a quarter of the model's layers: a ratio of means over the"
        " quarter's heads, so 100 % would restore all that the heads contributed directly and a"
        " negative share adds to the loss. The bars add up to the black diamond; whiskers are 95 %"
        f" bootstrap intervals over prompts.{what}"
        + "".join(f" {line}." for line in words.left_out_groups(others))
    )


def _rows(depth: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """A row per model, quarter and part, and how many of those have no finite share.

    No rows for the post-norms of models without any.
    """
    drawn = (name for part in PARTS for name in bounded(part))
    check_columns("E12", depth, "depth", [*DEPTH_KEYS, POST_NORMS, *drawn])
    table = stacked(depth, list(PARTS), *DEPTH_KEYS)
    own = pl.col("model").is_in(models_with_post_norms(depth))
    table = table.filter(own | (pl.col("quantity") != f"{POST_NORMS}_share"))
    table = table.with_columns(part=pl.col("quantity").replace_strict(PARTS))
    return depth_rows("E12", table, "value", "part", depths=QUARTERS)
