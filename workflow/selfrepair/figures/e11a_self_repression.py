"""E11a: how a head's direct effect answers to its own output in its layer's input.

Do heads write less where the residual stream already holds what they would write?
"""

from __future__ import annotations

import altair as alt
import polars as pl

from ..vocabulary import FED_BACK, bounded
from . import marks, words
from .axes import fitted, layer_axis, placed, side_by_side
from .rows import count_of, table_rows
from .theme import BLUE, ORANGE, SILVER

COLUMNS = (
    *("model", "layer", "head", "kind", "scaling", "n_tokens", "n_prompts"),
    *bounded("slope"),
)
# What is added, in words and in colour.
NAMES = dict(
    zip(FED_BACK, ("its own output", "a random direction", "another head's output"), strict=True)
)
INKS = dict(zip(NAMES.values(), (ORANGE, SILVER, BLUE), strict=True))


def draw(self_repression: pl.DataFrame) -> alt.FacetChart:
    """One model, nothing ablated, a panel per scaling of the added vector. Up: the slope of the new
    direct effect against the old one; 1: unchanged, below 1: the head represses itself. A point is a
    head, a line joins the means of a layer's heads."""
    rows, missing = _rows(self_repression)
    n_layers, first = count_of(rows, "layer"), int(rows["layer"].min())  # type: ignore[arg-type]
    x = layer_axis(n_layers, first=first)
    y = fitted(rows, "slope", "Slope, new / old effect", include=[1.0, *rows["mean_slope"]])
    rows, bars = placed(rows, y=y), marks.few(rows, "panel")
    colour = marks.inks("vector", "Added vector", INKS)
    tooltip = words.tips(rows, "layer", "head", "n_tokens", y, vector="Added vector")
    line = alt.Chart().mark_line(strokeWidth=2.2)
    layers = [
        marks.layer_bands(n_layers, first=first),
        marks.rule(y=1.0),
        *marks.estimates(rows, y, "panel", bars=bars, x=x.x(), color=colour, tooltip=tooltip),
        line.encode(x=x.x("layer"), y=y.y("mean_slope"), color=colour),
    ]
    return words.titled(
        marks.facets(layers, rows, size=(680, 150), columns=1).resolve_axis(x="shared"),
        "Heads fed with their own output",
        f"{rows['model'][0]}, nothing ablated, {words.FROM_TOP_TOKENS}: {words.sample(rows)}",
        f"Point: head, in order within its layer{', bar: 95 % interval' * bars}; line: layer mean; at 1"
        " the head is unchanged",
        *words.notes(rows, *[y] * bars, missing=missing),
    )


def caption(self_repression: pl.DataFrame) -> str:
    rows, _ = _rows(self_repression)
    scalings = [f"{scaling:g}" for scaling in rows["scaling"].unique().sort()]
    heads = rows.select("layer", "head").n_unique()
    return (
        f"Do the heads of {rows['model'][0]} write less where their output is already there?"
        f" Nothing is ablated: for {heads:,} heads, on {words.FROM_TOP_TOKENS}"
        f" (those with its largest direct effect; {words.sample(rows)}), {words.listed(scalings)} times a vector is added to the input of the"
        " head's layer at that position, and the slope of the new direct effect against the old one"
        " is drawn: 1 if the head does not react, below 1 if it writes less of the same. The vector is"
        " the head's own output, or as controls a random direction or another head's output of the"
        " same norm. Where the head's own output lowers the slope further than the controls do, the"
        " head represses itself; lines are means over a layer's heads."
    )


def _rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The heads, with the mean of their layer; how many rows have no value."""
    about = ("E11a", table, "self_repression")
    kinds = {"kind": FED_BACK}
    rows, missing = table_rows(*about, columns=COLUMNS, finite=["slope"], only=kinds)
    rows = rows.with_columns(
        side_by_side(count_of(rows, "head")),
        panel=pl.Series([f"{scaling:g} × the vector" for scaling in rows["scaling"]]),
        vector=pl.col("kind").replace_strict(NAMES),
        mean_slope=pl.col("slope").mean().over("scaling", "kind", "layer"),
    )
    return rows.sort("scaling", "kind", "layer", "head"), missing
