"""E15: the share of the direct effect that is made up for, by quarter of the layers, a line per model."""

from __future__ import annotations

import altair as alt
import polars as pl

from ..vocabulary import QUARTERS
from . import marks, words
from .axes import placed, share_axis
from .rows import depth_rows, models_of

TITLE = "Self-repair across models"
SHARE = "self_repair_share"


def draw(depth: pl.DataFrame) -> alt.LayerChart:
    """Resample ablation, top tokens: ratio of means over the heads of a quarter, whiskers its 95 % interval.

    Quarters are what models of different depth have in common; within one, models stand side by side, in
    the order of the study.
    """
    rows, missing, left_out = depth_rows("E15", depth, SHARE, depths=QUARTERS)
    # So few points that a wild one would be among the outermost 5 %.
    y = share_axis(rows, SHARE, "Share of the direct effect made up for (%)", keep=0.8)
    rows, models = placed(rows, y=y), models_of(rows)
    # Lines between quarters, not through them.
    axis = alt.Axis(
        labelAngle=0, labelPadding=6, ticks=False, tickBand="extent", grid=True, gridColor="#dddddd"
    )
    quarters = alt.Scale(domain=list(QUARTERS), padding=0)
    title = "Relative depth (quarter of the layers)"
    layers = marks.joined(
        rows,
        y,
        x=alt.X("depth:N", title=title, axis=axis, scale=quarters),
        xOffset=alt.XOffset("model:N", scale=alt.Scale(type="point", domain=models, padding=1.5)),
        color=marks.model_colour(models),
        tooltip=words.tips(rows, "model", "depth", "n_heads", y),
    )
    chart = alt.LayerChart(layer=[marks.rule(y=0.0), *layers], data=rows, width=560, height=340)
    return words.titled(
        chart,
        TITLE,
        f"Resample ablation, {words.FROM_TOP_TOKENS}; whisker: 95 % interval over prompts",
        *["Models stand side by side in a quarter, in the order of the legend"][: len(models) - 1],
        *words.left_out_groups(left_out),
        *words.notes(rows, y, missing=missing),
    )


def caption(depth: pl.DataFrame) -> str:
    rows, _, left_out = depth_rows("E15", depth, SHARE, depths=QUARTERS)
    return (
        f"What part of an ablated head's direct effect is made up for, in {words.listed(models_of(rows))} under"
        f" resample ablation, on {words.FROM_LARGEST}: {words.sample(rows, unit='quarter')}."
        f" {words.REPAIR} Each point is the ratio of the mean self-repair to the mean direct effect over the heads"
        " of a quarter of a model's layers, so that models of different depth can be compared: 100 % would"
        " restore what the heads contributed directly, below zero the rest of the model adds to the loss. A line joins"
        " the quarters of a model that lie within the axis."
        " Whiskers are 95 % bootstrap intervals over prompts."
        + "".join(f" {line}." for line in words.left_out_groups(left_out))
    )
