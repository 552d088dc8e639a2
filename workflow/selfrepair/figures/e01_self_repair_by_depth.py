"""E1: self-repair of each head on its top tokens against relative depth, for all models."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from . import words
from .axes import DEPTH, Span, axis_limits, placed
from .marks import facets, model_colour, points, rule
from .rows import head_rows, layer_means, models_of

# Of a panel, in pixels: of one model, and of each of several.
ONE, OF_SEVERAL = (620, 360), (300, 200)
# The lines of other models: paler than any model's own.
PALE = "#c4c4c4"


def draw(heads: pl.DataFrame) -> alt.LayerChart | alt.FacetChart:
    """Self-repair (logits) under resample ablation; a point is a head, a line joins a model's layers.

    A panel per model; of several, with the lines of the others in grey. A layer's mean is unweighted, over
    its heads that have a value.

    Raises:
        InputError: a column is missing, or the table has no such rows.
    """
    rows, missing = _rows(heads)
    means = layer_means(rows, "self_repair", "model", "depth")
    limits = axis_limits(rows["self_repair"], include=[0.0, *means["self_repair"]])
    y = Span("self_repair", "Self-repair (logits)", limits)
    rows = placed(rows, y=y)
    several = len(models_of(rows)) > 1
    chart = _panels(rows, means, y) if several else _panel(rows, means, y)
    others = ", grey: those of the other models" * several
    return words.titled(
        chart,
        "Self-repair by depth",
        f"Resample ablation, {words.FROM_TOP_TOKENS}; point: head, line: layer mean{others}",
        *words.left_out(heads),
        *words.notes(rows, missing=missing),
    )


def _panel(rows: pl.DataFrame, means: pl.DataFrame, y: Span) -> alt.LayerChart:
    """Of one model."""
    place = _place(rows, y)
    dots = points(rows).encode(**place, tooltip=_tooltip())
    line = alt.Chart(means).mark_line(strokeWidth=2.5).encode(**place)
    chart = alt.LayerChart(layer=[rule(y=0.0), dots, line], data=rows)
    return chart.properties(width=ONE[0], height=ONE[1])


def _panels(rows: pl.DataFrame, means: pl.DataFrame, y: Span) -> alt.FacetChart:
    """Of several models, whose headings are their legend; rows of layer means have a `line`."""
    place = _place(rows, y)
    place["color"] = place["color"].legend(None)
    # With data of its own: every panel shows all of it.
    others = alt.Chart(means).mark_line(strokeWidth=1.2, color=PALE)
    layers = [
        rule(y=0.0),
        others.encode(x=place["x"], y=place["y"], detail="model:N"),
        points(rows, "model")
        .encode(**place, tooltip=_tooltip())
        .transform_filter("!isValid(datum.line)"),
        alt.Chart()
        .mark_line(strokeWidth=2.5)
        .encode(**place)
        .transform_filter("isValid(datum.line)"),
    ]
    lines = means.with_columns(line=pl.lit("layer mean"))
    both = pl.concat([rows, lines], how="diagonal_relaxed")
    return facets(layers, both, size=OF_SEVERAL, by="model")


def _place(rows: pl.DataFrame, y: Span) -> dict[str, Any]:
    return {"x": DEPTH.x(), "y": y.y(), "color": model_colour(models_of(rows))}


def _tooltip() -> list[alt.Tooltip]:
    return [
        *words.HEAD_TIP,
        *words.interval_tip("self_repair", "Self-repair"),
        words.logits_tip("direct_effect"),
    ]


def caption(heads: pl.DataFrame) -> str:
    rows, _ = _rows(heads)
    several = len(models_of(rows)) > 1
    return (
        f"Self-repair of the attention heads of {words.listed(models_of(rows))}"
        f" ({words.number_of(rows, heads)}) under resample ablation, each averaged over"
        f" {words.FROM_LARGEST}: {words.sample(rows)}. {words.REPAIR} A point is one head and a line"
        f" joins the means of a model's layers{' (grey: of the other models)' * several}; above zero the rest of the model compensates for the"
        " head, below zero it adds to the damage."
    )


def _rows(heads: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    return head_rows("E1", heads, ["self_repair", "direct_effect"])
