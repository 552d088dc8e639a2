"""E11b: change of a head when it reads an earlier input, against its change when a head is ablated.

If heads make up for a lost head because they refine whatever the stream lacks, both go together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import polars as pl

from ..vocabulary import BOUNDS, TOP, bounded
from . import marks, words
from .axes import Span, fitted, layer_axis, placed
from .rows import count_of, estimate, summary_rows, table_rows

CHANGES = ("refeed_change", "ablation_change")
COLUMNS = ("model", "layer", "head", "next_head", *CHANGES, "n_tokens", "n_prompts")
HEIGHT = 380


def draw(refeeding: pl.DataFrame, summaries: pl.DataFrame) -> alt.HConcatChart:
    """One model, resample ablation, changes of the direct effect in logits. Left: a point per head of
    a layer and head of the next; right: the correlation of the two changes per pair of layers.
    """
    rows, pooled, pairs, missing = _rows(refeeding, summaries)
    x_title = "Change when it reads the earlier input (logits)"
    y_title = "Change when the earlier head is ablated (logits)"
    x = fitted(rows, CHANGES[0], x_title, bars=False)
    y = fitted(rows, CHANGES[1], y_title, bars=False)
    rows = placed(rows, x=x, y=y)
    estimated, empty = pairs.drop_nulls("correlation"), pairs["correlation"].null_count()
    right = [] if estimated.is_empty() else [_pairs_panel(estimated, pooled)]
    return words.titled(
        alt.hconcat(_heads_panel(rows, x, y), *right, spacing=30),
        "Reading an earlier input against losing a head",
        f"{rows['model'][0]}, resample ablation, {words.TOP_TOKENS},"
        f" those that lie in the experiment's prompts: {words.sample(rows)}",
        "Correlation of the two, over tokens and pairs of heads:"
        f" {words.estimated(pooled, unit='')}; dashed: y = x",
        *marks.density_note(rows),
        *words.notes(rows, missing=missing),
        *[f"Pairs of layers without a correlation, not drawn: {empty:,}"][:empty],
    )


def caption(refeeding: pl.DataFrame, summaries: pl.DataFrame) -> str:
    rows, pooled, pairs, _ = _rows(refeeding, summaries)
    right = ", and per pair of layers on the right" if pairs.height else ""
    return (
        f"{marks.mark_of(rows, 'pair')} of a head in one layer of {rows['model'][0]} and a head in the next"
        f" ({rows.height:,} pairs), on all of the first head's top tokens that lie in the"
        f" experiment's prompts ({words.LARGEST}; {words.sample(rows)}). Across: by how much the second head's direct effect on the logit of"
        " the token to predict changes when its layer reads the first head's layer's input again, so"
        " that it misses all that this layer wrote; up: by how much it changes when only the first"
        " head is ablated (resample ablation). If heads make up for a lost head because they refine"
        " whatever the stream still lacks, both changes go together: over tokens and pairs of heads,"
        f" their correlation is {words.estimated(pooled, unit='')}{right}."
    )


def _rows(
    table: pl.DataFrame, summaries: pl.DataFrame
) -> tuple[pl.DataFrame, Mapping[str, Any] | None, pl.DataFrame, int]:
    """The pairs of heads; the correlation over all of them, and per pair of layers; how many pairs of
    heads have no value."""
    rows, missing = table_rows("E11b", table, "refeeding", columns=COLUMNS, finite=CHANGES)
    about: marks.Look = {"experiment": "E11", "quantity": "change_correlation"}
    found = summary_rows("E11b", summaries, rows["model"][0], **about).filter(group=TOP)
    pairs = found.drop_nulls("layer").sort("layer")
    pairs = pairs.rename(dict(zip(("value", *BOUNDS), bounded("correlation"), strict=True)))
    return rows, estimate(found.filter(pl.col("layer").is_null())), pairs, missing


def _heads_panel(rows: pl.DataFrame, x: Span, y: Span) -> alt.LayerChart:
    tooltip = words.tips(
        rows,
        *("layer", "n_tokens", x, y),
        head="Ablated head",
        next_head="Head of the next layer",
    )
    drawn = marks.cloud_rows(rows, x, y)
    colour = marks.layer_colour(count_of(rows, "layer"))
    layers = [
        marks.rule(y=0.0),
        marks.rule(x=0.0),
        *marks.cloud(drawn, x, y, things="Pairs", color=colour, tooltip=tooltip),
        marks.line_through_zero(1.0, x, y),
    ]
    title = words.heading("Heads of the next layer")
    return alt.LayerChart(layer=layers, data=drawn, width=HEIGHT, height=HEIGHT, title=title)


def _pairs_panel(pairs: pl.DataFrame, pooled: Mapping[str, Any] | None) -> alt.LayerChart:
    n_layers = count_of(pairs, "layer")
    y = Span("correlation", "Correlation (no unit)", (-1.05, 1.05))
    place: marks.Look = {
        "x": layer_axis(n_layers, title="Layer of the ablated head").x("layer"),
        "color": marks.layer_colour(n_layers),
        "tooltip": words.tips(pairs, "layer", y),
    }
    points = alt.Chart().mark_point(filled=True, size=40, opacity=1)
    dotted: marks.Look = {"color": "black", "strokeDash": marks.DOTTED}
    layers = [
        marks.rule(y=0.0),
        marks.whiskers(y, strokeOpacity=0.6).encode(**place),
        points.encode(y=y.y(), **place),
        *([marks.rule(y=pooled["value"], **dotted)] if pooled else []),
    ]
    title = words.heading("Correlation per pair of layers; dotted: all")
    return alt.LayerChart(layer=layers, data=pairs, width=300, height=HEIGHT, title=title)
