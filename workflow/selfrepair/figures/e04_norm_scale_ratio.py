"""E4: by how much ablating a head shrinks the final norm's scale, S / S', per ablation and head."""

from __future__ import annotations

import math

import altair as alt
import polars as pl

from ..ablations import ABLATIONS
from . import marks, words
from .axes import Limits, Span, axis_limits
from .panels import heads_and_tokens
from .rows import estimate, heads_of, summary_rows, table_rows
from .theme import BLUE, SILVER

COLUMNS = ("model", "ablation", "layer", "head", "prompt", "position", "ratio")
BINS = 40


def draw(scale_ratios: pl.DataFrame, summaries: pl.DataFrame) -> alt.FacetChart:
    """One model, top tokens, no unit: a histogram per ablation and head, a column of them per head. One
    boundary of the bins is 1; tokens beyond the axis are in its last bins."""
    rows, shares, missing = _rows(scale_ratios, summaries)
    bars, limits, beyond = _bars(rows, shares)
    x = Span("start", "S / S' (ratio)", limits, options={"tickCount": 3, "grid": False})
    top = 1.06 * max(bars["share"])
    y = Span("share", "Tokens (%)", (0.0, top), percent=True, options={"tickCount": 3})
    ink = alt.when("datum.start >= 1").then(alt.value(BLUE)).otherwise(alt.value(SILVER))
    ends = {"start": "From", "stop": "To"}
    tooltip = [alt.Tooltip(f"{end}:Q", title=title, format=".4f") for end, title in ends.items()]
    tooltip += words.tips(bars, y, count="Tokens")
    sides = (x.x(), alt.X2("stop:Q"), y.y(), alt.Y2Datum(0))
    layers = [
        alt.Chart().mark_bar(binSpacing=0.5).encode(*sides, color=ink, tooltip=tooltip),
        marks.rule(x=1.0, color="black", strokeDash=marks.DASHED),
    ]
    n_heads = len(heads_of(rows))
    pooled = shares.filter(pl.col("layer").is_null())
    over_all = [
        f"{name} {words.estimated(estimate(pooled, ablation=name))}"
        for name in marks.headings_of(bars, "ablation")
    ]
    return words.titled(
        marks.facets(layers, bars, size=(360 if n_heads == 1 else 170, 80), columns=n_heads),
        "Change of the final norm's scale",
        f"{rows['model'][0]}; {words.FROM_TOP_TOKENS}: {words.tokens_per_head(rows, 'ablation')}",
        "Bars: share of the head's tokens; dashed: no change; above each panel the share above 1 and"
        " its 95 % interval",
        *[f"Above 1 over all of these heads: {', '.join(over_all)}"][: pooled.height],
        *[f"Beyond the axis, in the outermost bars: {beyond:,} of {rows.height:,} tokens"][:beyond],
        *words.notes(rows, missing=missing),
    )


def caption(scale_ratios: pl.DataFrame, summaries: pl.DataFrame) -> str:
    rows, _, _ = _rows(scale_ratios, summaries)
    sample = words.tokens_per_head(rows, "ablation")
    names = words.listed([name for name in ABLATIONS if name in rows["ablation"]])
    return (
        "The final norm divides the residual stream by its scale; shown is the scale S with all heads"
        " over the scale S' when one is ablated, for"
        f" {heads_and_tokens(rows, sample, ablation=names)}. Above 1, to the"
        " right of the dashed line, the ablated stream is divided by less, so all that is left in it"
        " counts for more: this alone restores part of the lost logit. The printed share of tokens"
        " above 1 carries a 95 % bootstrap interval over prompts."
    )


def _rows(
    scale_ratios: pl.DataFrame, summaries: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """The tokens, the shares above 1 by ablation and head, and how many tokens have no value."""
    table = ("E4", scale_ratios, "scale_ratios")
    known = {"ablation": list(ABLATIONS)}
    rows, missing = table_rows(*table, columns=COLUMNS, finite=["ratio"], only=known)
    about: marks.Look = {"experiment": "E4", "quantity": "share_above_1"}
    shares = summary_rows("E4", summaries, rows["model"][0], **about)
    return rows, shares.rename({"group": "ablation"}), missing


def _bars(rows: pl.DataFrame, shares: pl.DataFrame) -> tuple[pl.DataFrame, Limits, int]:
    """A row per ablation, head and bin that is not empty, with `panel`, its heading; the axis; how many tokens
    lie beyond it.

    A ratio of exactly 1 is not above 1, so a bin contains its upper end.
    """
    low, high = axis_limits(rows["ratio"], include=[1.0], reach=0.25)
    width = (high - low) / BINS
    first, last = math.floor((low - 1) / width), math.ceil((high - 1) / width)
    limits = 1 + first * width, 1 + last * width
    keys = ("ablation", "layer", "head")
    upper = ((pl.col("ratio") - 1) / width).ceil().clip(first + 1, last).alias("upper")
    bars = rows.group_by(*keys, upper).len("count")
    titles = {name: ablation.title for name, ablation in ABLATIONS.items()}
    panels = [
        panel | {"above": words.estimated(estimate(shares, **panel))}
        for panel in heads_of(rows, "ablation")
    ]
    title = pl.col("ablation").replace_strict(titles)
    bars = bars.join(pl.DataFrame(panels), on=keys).with_columns(
        start=1 + (pl.col("upper") - 1) * width,
        stop=1 + pl.col("upper") * width,
        share=pl.col("count") / pl.col("count").sum().over(keys),
        panel=pl.format("L{}H{}, {}\nabove 1: {}", "layer", "head", title, "above"),
    )
    order = pl.col("ablation").cast(pl.Enum(list(ABLATIONS)))
    beyond = rows.filter(~pl.col("ratio").is_between(*limits)).height
    return bars.sort(order, "layer", "head", "upper"), limits, beyond
