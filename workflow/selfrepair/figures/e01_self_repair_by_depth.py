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


def draw(heads: pl.DataFrame) -> alt.LayerChart | alt.FacetChart:
    """Self-repair (logits) under resample ablation; a point is a head, a line joins a model's layers.

    A panel per model; of several, with the lines of the others in grey. A layer's mean is unweighted, over
    its heads that have a value.
    """
    rows, missing = head_rows("E1", heads, COLUMNS)
    means = layer_means(rows, "self_repair", "model", "depth")
    include = [0.0, *means["self_repair"]]
    y = fitted(rows, "self_repair", "Self-repair (logits)", bars=False, include=include)
    rows, models = placed(rows, y=y), models_of(rows)
    colour = marks.model_colour(models)
    # Headings name several models, and each panel has the lines of all: with data of their own.
    place: marks.Look = {
        "x": DEPTH.x(),
        "y": y.y(),
        "color": colour.legend(None) if models[1:] else colour,
    }
    dots = marks.points(rows, "model").encode(
        **place, tooltip=words.tips(rows, *words.HEAD, *COLUMNS)
    )
    line = alt.Chart().mark_line(strokeWidth=2.5).encode(**place)
    pale = alt.Chart(means).mark_line(strokeWidth=1.2, color=PALE)
    pale = pale.encode(x=place["x"], y=place["y"], detail="model:N")
    layers = [
        marks.rule(y=0.0),
        *[pale] * (len(models) > 1),
        dots.transform_filter("!isValid(datum.line)"),
        line.transform_filter("isValid(datum.line)"),
    ]
    both = pl.concat([rows, means.with_columns(line=pl.lit("layer mean"))], how="diagonal_relaxed")
    others = ", grey: those of the other models" * (len(models) > 1)
    return words.titled(
        marks.facets(layers, both, size=(300, 200), by="model")
        if models[1:]
        else alt.LayerChart(layer=layers, data=both, width=620, height=360),
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
