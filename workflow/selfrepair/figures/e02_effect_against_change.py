"""E2: each head's direct effect against the logit's change when it is ablated, a panel per ablation."""

from __future__ import annotations

import altair as alt
import polars as pl

from ..ablations import ABLATIONS
from ..other_ablations import OPTIMAL, TITLES
from ..vocabulary import TOP, bounded
from . import words
from .axes import Span, axis_limits, interval_limits, n_cut, placed
from .marks import (
    MOST_BARS,
    crowd,
    facets,
    headings_of,
    layer_colour,
    line_through_zero,
    points,
    rule,
    whiskers,
)
from .rows import check_columns, count_of, head_rows

# Of chosen heads under every ablation.
COLUMNS = (
    *("model", "ablation", "layer", "head", "n_tokens", "n_prompts"),
    *(*bounded("direct_effect"), *bounded("delta_logit")),
)


def draw(heads: pl.DataFrame, compared: pl.DataFrame | None = None) -> alt.FacetChart:
    """One model, top tokens, both in logits. On y = -x the logit falls by exactly the direct effect.

    compared: chosen heads under every ablation; their optimal ablation is one more panel, if it was measured.
    Bars are 95 % intervals, left out where there are too many heads to tell them apart.

    Raises:
        InputError: more than one model, a column is missing, or the table has no such rows.
    """
    rows, missing = _rows(heads, compared)
    x = Span("direct_effect", "Direct effect (logits)", axis_limits(rows["direct_effect"]))
    limits = interval_limits(rows, "delta_logit")
    y = Span("delta_logit", "Change of the logit when ablated (logits)", limits)
    rows = placed(rows, x=x, y=y)
    colour = layer_colour(count_of(heads, "layer"))
    tooltip = [
        *words.HEAD_TIP,
        *words.interval_tip("direct_effect", "Direct effect"),
        *words.interval_tip("delta_logit", "Change of the logit"),
    ]
    bars = _bars(rows)
    layers = [
        rule(y=0.0),
        line_through_zero(-1.0, x, y),
        *[whiskers(y).encode(x=x.x(), color=colour)] * bars,
        points(rows, "panel").encode(x=x.x(), y=y.y(), color=colour, tooltip=tooltip),
    ]
    return words.titled(
        facets(layers, rows, size=(320, 320)),
        "Change of the logit against direct effect",
        f"{rows['model'][0]}, {words.FROM_TOP_TOKENS}; point: head, dashed: y = −x, no self-repair"
        + ", bar: 95 % interval" * bars,
        *words.left_out(heads),
        *words.notes(rows, missing=missing, cut=n_cut(rows, y) * bars),
    )


def caption(heads: pl.DataFrame, compared: pl.DataFrame | None = None) -> str:
    rows, _ = _rows(heads, compared)
    bars = "; bars are 95 % bootstrap intervals over prompts" if _bars(rows) else ""
    return (
        f"A point is an attention head of {rows['model'][0]} ({words.number_of(rows, heads)}) under"
        f" {words.listed(headings_of(rows, 'ablation'))} ablation, averaged over {words.FROM_LARGEST}:"
        f" {words.sample(rows)}{bars}. Across: the head's direct effect on the target token's logit;"
        " up: by how much that logit changes when the head is ablated. On the dashed line y = −x the"
        " logit falls by just the direct effect; above it later parts of the model make up for part"
        " of the loss (self-repair), or the replaced output has some direct effect of its own, and"
        f" at zero the whole loss is made up for.{_of_optimal(rows)}"
    )


def _rows(heads: pl.DataFrame, compared: pl.DataFrame | None) -> tuple[pl.DataFrame, int]:
    """The rows, with their panel's heading, in the order of ABLATIONS, then those of chosen heads."""
    columns = ("direct_effect", "delta_logit")
    rows, missing = head_rows("E2", heads, columns, ablations=list(ABLATIONS), one_model=True)
    parts = [
        rows.filter(ablation=ablation.name).with_columns(panel=pl.lit(ablation.title.capitalize()))
        for ablation in ABLATIONS.values()
    ]
    if compared is not None and not compared.is_empty():
        parts.append(_optimal(compared, parts[0]))
    return pl.concat(parts), missing


def _of_optimal(rows: pl.DataFrame) -> str:
    """What is different about the panel of optimal ablation, if there is one."""
    if OPTIMAL not in rows["ablation"]:
        return ""
    return (
        " Optimal ablation, by the constant that does the least harm, is of chosen heads alone, on other tokens of"
        " theirs, and leaves a beginning-of-sequence token as it is."
    )


def _optimal(compared: pl.DataFrame, like: pl.DataFrame) -> pl.DataFrame:
    """The chosen heads under the ablation that does the least harm."""
    check_columns("E2", compared, "compared_ablations", COLUMNS)
    known = compared.filter(pl.col("delta_logit").is_finite(), ablation=OPTIMAL)
    heading = f"{TITLES[OPTIMAL].capitalize()}, chosen heads"
    rows = known.with_columns(
        selection=pl.lit(TOP), depth=pl.lit(None, pl.Float64), panel=pl.lit(heading)
    )
    return rows.select(pl.col(name).cast(kind) for name, kind in like.schema.items())


def _bars(rows: pl.DataFrame) -> bool:
    return crowd(rows, "panel") <= MOST_BARS
