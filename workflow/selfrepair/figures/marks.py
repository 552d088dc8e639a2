"""Marks that several figures draw, their colours, and how panels stand side by side.

A mark has no data of its own unless it says so: it takes the rows of the chart that it is layered in,
`alt.layer(..., data=rows)`, which `facets` then splits into panels. Channels are of Altair's own classes
(`alt.X2("high:Q")`, not `x2="high:Q"`): it looks anything else up in its whole schema, which takes longer than the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from ..vocabulary import bounded
from .axes import ABOVE, BELOW, EDGES, LEFT, RIGHT, WITHIN, Span, axis_limits
from .theme import AMBER, BLACK, BLUE, COLOURS, GREEN, GREY, ORANGE, PINK

# Keywords of a mark, or channels.
Look = dict[str, Any]
# More intervals than this in a panel hide the points that they belong to.
MOST_BARS = 400
# More points than this in a panel are drawn as a density, in so many cells across and up.
MOST_POINTS, CELLS = 3000, 48
DASHED, DOTTED = [5, 3], [2, 3]


def crowd(rows: pl.DataFrame, *panel: str) -> int:
    """The number of rows in the fullest panel; `panel` are the columns that tell panels apart."""
    return int(rows.group_by(panel).len()["len"].max()) if panel else rows.height  # type: ignore[arg-type]


# Panels


def headings_of(rows: pl.DataFrame, by: str = "panel") -> list[str]:
    """The headings of the panels, in the order of the rows."""
    return rows[by].unique(maintain_order=True).to_list()


def facets(
    layers: Sequence[Any],
    rows: pl.DataFrame,
    *,
    size: tuple[int, int],
    by: str = "panel",
    columns: int | None = None,
) -> alt.FacetChart:
    """The layers in a panel per value of the column `by`, its heading, in order, on the same axes.

    size: width and height of a panel in pixels. columns: panels side by side, by default 3, or 2 of 2
    or 4.
    """
    headings, (width, height) = headings_of(rows, by), size
    panel = alt.LayerChart(layer=list(layers), data=rows, width=width, height=height)
    # Bold names; plain where lines of numbers follow.
    weight: Any = "normal" if any("\n" in heading for heading in headings) else "bold"
    header = alt.Header(labelFontWeight=weight)
    field = alt.Facet(f"{by}:N", title=None, sort=headings, header=header)
    columns = columns or (2 if len(headings) in (2, 4) else min(len(headings), 3))
    axes = alt.Resolve(axis=alt.AxisResolveMap(x="independent"))
    return panel.facet(field, columns=columns, spacing=24, resolve=axes)


# Points


def points(rows: pl.DataFrame, *panel: str, shapes: Mapping[str, str] = EDGES) -> alt.Chart:
    """The rows of `axes.placed` as filled points, the smaller and fainter the fuller the panel.

    Triangles, for values beyond the axes, stand out. shapes: of each value of `edge`.
    """
    number = crowd(rows, *panel)
    size = 34 if number <= 150 else 22 if number <= 800 else 14
    opacity = 0.75 if number <= 150 else 0.6 if number <= 800 else 0.35
    beyond = alt.FieldOneOfPredicate(field="edge", oneOf=[ABOVE, BELOW, LEFT, RIGHT])
    scale = alt.Scale(domain=list(shapes), range=list(shapes.values()))
    dots = alt.Chart().mark_point(filled=True, opacity=1)
    # Opacity of the fill, not of the mark: a PDF makes a group of its own for each of the latter.
    return dots.encode(
        shape=alt.Shape("edge:N", scale=scale, legend=None),
        size=alt.SizeValue(size, condition={"test": beyond, "value": 2 * size}),
        fillOpacity=alt.FillOpacityValue(opacity, condition={"test": beyond, "value": 1}),
    )


def whiskers(span: Span, *, along: str = "y", **style: Any) -> alt.Chart:
    """The 95 % intervals of what the axis shows, cut at its ends; along: "y", upright, or "x"."""
    _, low, high = bounded(span.column)
    known = alt.Chart().transform_filter(f"isValid(datum.{low}) && isValid(datum.{high})")
    look: dict[str, Any] = {"strokeWidth": 1, "strokeOpacity": 0.4} | style
    bars = known.mark_rule(**look)
    if along == "y":
        return bars.encode(span.y(low), alt.Y2(f"{high}:Q"))
    return bars.encode(span.x(low), alt.X2(f"{high}:Q"))


def estimates(
    rows: pl.DataFrame, y: Span, *panel: str, bars: bool = True, tooltip: Any, **place: Any
) -> list[alt.Chart]:
    """`points`, on upright intervals if there are `bars`; place: x and colour of both."""
    dots = points(rows, *panel).encode(y=y.y(), tooltip=tooltip, **place)
    return [*[whiskers(y).encode(**place)] * bars, dots]


def joined(
    rows: pl.DataFrame,
    y: Span,
    *,
    bars: bool = True,
    where: str = "true",
    tooltip: Any,
    **place: Any,
) -> list[alt.Chart]:
    """Large points on their intervals, joined by a line per colour through those within the axis for
    which `where` holds; place: x and colour of all."""
    lines = alt.Chart().mark_line(strokeWidth=1.5, strokeOpacity=0.55).encode(y=y.y(), **place)
    look: Look = {"size": alt.SizeValue(60), "fillOpacity": alt.FillOpacityValue(1)}
    return [
        lines.transform_filter(f"datum.edge == '{WITHIN}' && {where}"),
        *[whiskers(y, strokeWidth=1.8, strokeOpacity=0.85).encode(**place)] * bars,
        points(rows).encode(y=y.y(), tooltip=tooltip, **place).encode(**look),
    ]


def few(rows: pl.DataFrame, *panel: str) -> bool:
    """Are there so few points in a panel that each can have a bar?"""
    return crowd(rows, *panel) <= MOST_BARS


def crowded(rows: pl.DataFrame, *panel: str) -> bool:
    """Has a panel too many points to draw them one by one?"""
    return crowd(rows, *panel) > MOST_POINTS


def mark_of(rows: pl.DataFrame, thing: str, *panel: str) -> str:
    """How to read a cloud, as a caption begins: what a mark of it is."""
    return (
        f"The darker a cell, the more {thing}s"
        if crowded(rows, *panel)
        else f"A point is one {thing}"
    )


def density_note(rows: pl.DataFrame, *panel: str) -> list[str]:
    """The line of a subtitle that says that points are drawn as a density, if they are."""
    words = f"More than {MOST_POINTS:,} points in a panel: drawn as a density"
    return [words] * crowded(rows, *panel)


def cloud_rows(rows: pl.DataFrame, x: Span, y: Span, *panel: str) -> pl.DataFrame:
    """The rows of `axes.placed`, or where a panel has too many, their counts in cells.

    A cell has `count` and its sides `x_start`, `x_stop`, `y_start`, `y_stop`; what lies beyond the
    axes stays a row of its own.
    """
    if not crowded(rows, *panel):
        return rows
    sides: dict[str, pl.Expr] = {}
    for name, span in (("x", x), ("y", y)):
        low, high = span.limits
        width = (high - low) / CELLS
        index = ((pl.col(span.column) - low) / width).floor().clip(0, CELLS - 1)
        sides |= {f"{name}_start": low + index * width, f"{name}_stop": low + (index + 1) * width}
    inside = rows.filter(edge=WITHIN).with_columns(**sides)
    cells = inside.group_by(*panel, *sides, maintain_order=True).len("count")
    return pl.concat([cells, rows.filter(pl.col("edge") != WITHIN)], how="diagonal")


def cloud(
    rows: pl.DataFrame, x: Span, y: Span, *panel: str, things: str = "Tokens", **encoding: Any
) -> list[alt.Chart]:
    """Points of `cloud_rows`, or their density; `encoding` is that of the points."""
    dots = points(rows, *panel).encode(x=x.x(), y=y.y(), **encoding)
    if "count" not in rows.columns:
        return [dots]
    greys = alt.SchemeParams("greys", extent=[0.12, 1])
    # Its own channel: `color` belongs to the points beyond the axes.
    fill = alt.Fill(
        "count:Q",
        title=[things, "per cell"],
        scale=alt.Scale(type="log", domainMin=1, nice=False, scheme=greys),
        legend=alt.Legend(format=",d", tickCount=4),
    )
    cells = alt.Chart().mark_rect(strokeWidth=0).transform_filter("isValid(datum.count)")
    sides = (x.x("x_start"), alt.X2("x_stop:Q"), y.y("y_start"), alt.Y2("y_stop:Q"))
    density = cells.encode(*sides, fill, alt.Tooltip("count:Q", title=things, format=",d"))
    # No dots where there are none: their colours would have a legend without a mark.
    beyond = [dots.transform_filter("!isValid(datum.count)")]
    return [density, *(beyond if rows["count"].has_nulls() else [])]


# Lines and bands, with data of their own


def rule(*, x: float | None = None, y: float | None = None, **style: Any) -> alt.Chart:
    """A line across the panel at y, or up at x."""
    place, channel = ({"y": y}, alt.Y("y:Q")) if x is None else ({"x": x}, alt.X("x:Q"))
    look: dict[str, Any] = {"color": GREY, "strokeWidth": 1} | style
    return alt.Chart(alt.InlineData(values=[place])).mark_rule(**look).encode(channel)


def line_through_zero(
    slope: float, x: Span, y: Span, *, positive: bool = False, **style: Any
) -> alt.Chart:
    """The line y = slope · x within the axes (which contain 0); `positive`: for positive x only."""
    limits = sorted(limit / slope for limit in y.limits) if slope else x.limits
    start = 0.0 if positive else max(x.limits[0], limits[0])
    ends = [{"x": end, "y": slope * end} for end in (start, min(x.limits[1], limits[1]))]
    look: dict[str, Any] = {"color": "black", "strokeWidth": 1.2, "strokeDash": DASHED} | style
    line = alt.Chart(alt.InlineData(values=ends)).mark_line(**look)
    return line.encode(x=x.x("x"), y=y.y("y"))


def layer_bands(n_layers: int, *, first: int = 0) -> alt.Chart:
    """Every other layer of `axes.layer_axis` shaded."""
    odd = range(first + 1 - first % 2, n_layers, 2)
    spans = [{"start": layer - 0.5, "stop": layer + 0.5} for layer in odd]
    bands = alt.Chart(alt.InlineData(values=spans)).mark_rect(color="#f2f2f2")
    return bands.encode(alt.X("start:Q"), alt.X2("stop:Q"))


# Colours

# What makes up for a head, and the whole of it: what figures call it, and its colour.
PARTS = {
    "from_heads": ("other heads", BLUE),
    "from_mlps": ("MLPs", PINK),
    "from_post_norms": ("post-norms", AMBER),
    "from_norm": ("final norm", GREEN),
    "self_repair": ("all self-repair", BLACK),
}


def inks(column: str, title: str | None, colours: Mapping[str, str], **options: Any) -> alt.Color:
    """These colours for these words of a column, which are in this order in the legend."""
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color(f"{column}:N", title=title, scale=scale, **options)


def part_inks(rows: pl.DataFrame) -> dict[str, str]:
    """The colours of those PARTS that the column `part` has."""
    return {name: ink for name, ink in PARTS.values() if name in set(rows["part"])}


def model_colour(models: Sequence[str]) -> alt.Color:
    """A colour per model, in the order of the study."""
    look: Any = {"range": COLOURS} if len(models) <= len(COLOURS) else {"scheme": "tableau20"}
    return alt.Color("model:N", title="Model", scale=alt.Scale(domain=list(models), **look))


def layer_colour(n_layers: int) -> alt.Color:
    """From the first layer, dark, to the last."""
    scale = alt.Scale(domain=[0, max(n_layers - 1, 1)])
    legend = alt.Legend(format="d", tickMinStep=1)
    return alt.Color("layer:Q", title="Layer", scale=scale, legend=legend)


def signed_colour(
    column: str,
    title: str | list[str],
    values: pl.Series,
    *,
    things: str = "points",
    keep: float = 0.9,
    reach: float = 0.5,
) -> tuple[alt.Color, list[str]]:
    """A scale symmetrical about 0, and what it cannot show of these values of things, a line of a subtitle each.

    keep, reach: as of `axes.axis_limits`.
    """
    limit = max(map(abs, axis_limits(values, keep=keep, reach=reach)))
    # Through grey, not white: a point near 0 must show on the page.
    scale = alt.Scale(
        domain=[-limit, 0, limit], range=[ORANGE, "#cfcfcf", BLUE], interpolate="lab", clamp=True
    )
    colour = alt.Color(f"{column}:Q", title=title, scale=scale, legend=alt.Legend(tickCount=5))
    beyond, unknown = (values.abs() > limit).sum(), values.null_count()
    counted = {
        f"Beyond the colours' scale, in its last colour: {beyond:,} {things}": beyond,
        f"{things.capitalize()} without a value for their colour: {unknown:,}": unknown,
    }
    return colour, [line for line, count in counted.items() if count]
