"""E1: self-repair of each head on its top tokens against relative depth, for all models."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from . import words
from .axes import DEPTH, Span, axis_limits, placed
from .marks import model_colour, points, rule
from .rows import head_rows, layer_means, models_of


def draw(heads: pl.DataFrame) -> alt.LayerChart:
    """Self-repair (logits) under resample ablation; a point is a head, a line joins a model's layers.

    A layer's mean is unweighted, over its heads that have a value.

    Raises:
        InputError: a column is missing, or the table has no such rows.
    """
    rows, missing = _rows(heads)
    means = layer_means(rows, "self_repair", "model", "depth")
    limits = axis_limits(rows["self_repair"], include=[0.0, *means["self_repair"]])
    y = Span("self_repair", "Self-repair (logits)", limits)
    rows = placed(rows, y=y)
    tooltip = [
        *words.HEAD_TIP,
        *words.interval_tip("self_repair", "Self-repair"),
        words.logits_tip("direct_effect"),
    ]
    place: dict[str, Any] = {"x": DEPTH.x(), "y": y.y(), "color": model_colour(models_of(rows))}
    dots = points(rows).encode(**place, tooltip=tooltip)
    lines = alt.Chart(means).mark_line(strokeWidth=2.5).encode(**place)
    chart = alt.LayerChart(layer=[rule(y=0.0), dots, lines], data=rows)
    return words.titled(
        chart.properties(width=620, height=360),
        "Self-repair by depth",
        f"Resample ablation, {words.FROM_TOP_TOKENS}; point: head, line: layer mean",
        *words.notes(rows, missing=missing),
    )


def caption(heads: pl.DataFrame) -> str:
    rows, _ = _rows(heads)
    return (
        f"Self-repair of the attention heads of {words.listed(models_of(rows))}"
        f" ({rows.height:,} in all) under resample ablation, each averaged over"
        f" {words.FROM_LARGEST}: {words.sample(rows)}. {words.REPAIR} A point is one head and a line"
        " joins the means of a model's layers; above zero the rest of the model compensates for the"
        " head, below zero it adds to the damage."
    )


def _rows(heads: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    return head_rows("E1", heads, ["self_repair", "direct_effect"])
