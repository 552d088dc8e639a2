"""E11a: how a head's direct effect answers to its own output in its layer's input (slope).

Nothing is ablated. A panel per scaling of the added vector. A point is a head, by layer and in order
within it; a line joins the means of a layer's heads. 1: unchanged, below 1: the head represses itself.
"""

from __future__ import annotations

import altair as alt
import polars as pl

from ..errors import InputError
from ..vocabulary import FED_BACK
from .panels import in_panels
from .plotting import (
    COLOURS,
    Span,
    axis_limits,
    axis_notes,
    bars_fit,
    count_of,
    counted_sample,
    edge_shape,
    finish,
    interval_tip,
    layer_axis,
    layer_bands,
    level_rule,
    listed,
    n_cut,
    n_outside,
    placed,
    plain_tip,
    point_marks,
    side_by_side,
    table_rows,
    with_intervals,
)

COLUMNS = (
    *("model", "layer", "head", "kind", "scaling", "slope", "slope_low", "slope_high"),
    *("n_tokens", "n_prompts"),
)
NAMES = {"own": "its own output", "random": "a random direction", "other": "another head's output"}
INKS = {"own": COLOURS[1], "random": COLOURS[7], "other": COLOURS[0]}


def draw(self_repression: pl.DataFrame) -> alt.FacetChart:
    """The chart of one model.

    Raises:
        InputError: more than one model, a missing column, an unknown kind of vector, or no rows.
    """
    rows, missing = _rows(self_repression)
    bars = bars_fit(rows, "scaling")
    values = with_intervals(rows, "slope") if bars else rows["slope"]
    domain = axis_limits(values, include=[1.0, *rows["mean_slope"]], required=rows["slope"])
    points = placed(rows, "slope", domain)
    n_layers, first = count_of(rows, "layer"), int(rows["layer"].min())  # type: ignore[arg-type]
    y = Span("slope", "Slope, new / old effect", domain)
    colour = alt.Color("kind_name:N", title="Added vector")
    colour = colour.scale(domain=list(NAMES.values()), range=list(INKS.values()))
    colour = colour.legend(symbolType="circle", symbolOpacity=1, symbolSize=70)
    tooltip = [
        plain_tip("layer", "Layer", "d"),
        plain_tip("head", "Head", "d"),
        alt.Tooltip("kind_name:N", title="Added vector"),
        plain_tip("n_tokens", "Tokens"),
        *interval_tip("slope", "Slope", unit="of 1"),
    ]
    x = layer_axis(n_layers, labels=True, first=first)
    base = alt.Chart().encode(x=x, color=colour)
    layers = [layer_bands(n_layers, first=first), level_rule(1.0)]
    if bars:
        # Cut at the axis.
        whisker = base.mark_rule(strokeOpacity=0.35, clip=True)
        layers.append(whisker.encode(y=y.up("slope_low"), y2="slope_high:Q"))
    line = base.mark_line(strokeWidth=2.2).encode(x="layer:Q", y=y.up("mean_slope"))
    layers += [
        point_marks(points).encode(
            x=x, y=y.up(), color=colour, shape=edge_shape(points), tooltip=tooltip
        ),
        line,
    ]
    subtitle = [
        f"{rows['model'][0]}, nothing ablated, each head's top 2 % of tokens: {counted_sample(rows)}",
        "Point: head, in order within its layer"
        f"{', bar: 95 % interval' if bars else ''}; line: layer mean; at 1 the head is unchanged",
        *axis_notes(
            outside=n_outside(points),
            drawn=points.height,
            missing=missing,
            cut=n_cut(points, "slope", domain) if bars else 0,
        ),
    ]
    chart = in_panels(points, *layers, width=680, height=150, columns=1)
    return finish(chart, "Heads fed with their own output", subtitle)


def caption(self_repression: pl.DataFrame) -> str:
    rows, _ = _rows(self_repression)
    scalings = [f"{scaling:g}" for scaling in rows["scaling"].unique().sort()]
    heads = rows.select("layer", "head").n_unique()
    return (
        f"Do the heads of {rows['model'][0]} write less where their output is already there?"
        f" Nothing is ablated: for {heads:,} heads, on each head's top tokens (the 2 % with its"
        f" largest direct effect; {counted_sample(rows)}), {listed(scalings)} times a vector is"
        " added to the input of the head's layer at that position, and the slope of the new direct"
        " effect against the old one is drawn: 1 if the head does not react, below 1 if it writes"
        " less of the same. The vector is the head's own output, or as controls a random direction"
        " or another head's output of the same norm. Where the head's own output lowers the slope"
        " further than the controls do, the head represses itself; lines are means over a layer's"
        " heads."
    )


def _rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    rows, missing = table_rows("E11a", table, "self_repression", columns=COLUMNS, finite=["slope"])
    unknown = sorted(set(rows["kind"]) - set(FED_BACK))
    if unknown:
        raise InputError(
            f"E11a: the self_repression table has kind {', '.join(unknown)};"
            f" allowed are {', '.join(FED_BACK)}"
        )
    scaling = pl.col("scaling").map_elements(lambda value: f"{value:g} × the vector", pl.String)
    rows = rows.with_columns(
        panel=scaling,
        kind_name=pl.col("kind").replace_strict(NAMES, return_dtype=pl.String),
        place_x=side_by_side(count_of(rows, "head")),
        mean_slope=pl.col("slope").mean().over("scaling", "kind", "layer"),
    )
    return rows.sort("scaling", "kind", "layer", "head"), missing
