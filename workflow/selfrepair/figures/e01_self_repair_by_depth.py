"""E1: self-repair of each head on its top tokens against relative depth, for all models."""

from __future__ import annotations

import altair as alt
import polars as pl

from . import marks, words
from .axes import DEPTH, fitted, placed
from .rows import head_rows, layer_means, models_of

COLUMNS = ["self_repair", "direct_effect"]
# The lines of other models: paler than any model's own.
PALE = "#c4c4c4"


def draw(heads: pl.DataFrame) -> alt.FacetChart:
    """Self-repair (logits) under resample ablation; a point is a head, a line joins a model's layers.

    A panel per model; of several, with the lines of the others in grey. A layer's mean is unweighted, over
    its heads that have a value.
    """
    rows, missing = head_rows("E1", heads, COLUMNS)
    means, models = layer_means(rows, "self_repair", "model", "depth"), models_of(rows)
    include = [0.0, *means["self_repair"]]
    y = fitted(rows, "self_repair", "Self-repair (logits)", bars=False, include=include)
    rows = placed(rows, y=y)
    # Headings name the models.
    place: marks.Look = {"x": DEPTH.x(), "color": marks.model_colour(models).legend(None)}
    tooltip = words.tips(rows, *words.HEAD, *COLUMNS)
    # With data of their own, so that each panel has the lines of all.
    pale = alt.Chart(means).mark_line(strokeWidth=1.2, color=PALE)
    line = alt.Chart().mark_line(strokeWidth=2.5)
    layers = [
        marks.rule(y=0.0),
        *[pale.encode(DEPTH.x(), y.y(), alt.Detail("model:N"))] * (len(models) > 1),
        *marks.estimates(rows, y, "model", bars=False, tooltip=tooltip, **place),
        line.encode(y=y.y("mean(self_repair)"), **place),
    ]
    others = ", grey: those of the other models" * (len(models) > 1)
    size = (300, 200) if models[1:] else (620, 360)
    return words.titled(
        marks.facets(layers, rows, size=size, by="model"),
        "Self-repair by depth",
        f"Resample ablation, {words.FROM_TOP_TOKENS}; point: head, line: layer mean{others}",
        *words.left_out(heads),
        *words.notes(rows, missing=missing),
    )


def caption(heads: pl.DataFrame) -> str:
    rows, _ = head_rows("E1", heads, COLUMNS)
    others = " (grey: of the other models)" * (len(models_of(rows)) > 1)
    return (
        f"Self-repair of the attention heads of {words.listed(models_of(rows))}"
        f" ({words.number_of(rows, heads)}) under resample ablation, each averaged over"
        f" {words.FROM_LARGEST}: {words.sample(rows)}. {words.REPAIR} A point is one head and a line"
        f" joins the means of a model's layers{others}; above zero the rest of the model compensates"
        " for the head, below zero it adds to the damage."
    )
