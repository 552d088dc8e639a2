"""Axes: from where to where, and what becomes of values beyond.

An axis shows every value unless a few would stretch it beyond use. Those are drawn at its edge, as
triangles that point outwards, and the subtitle counts them: nothing is cropped silently.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..vocabulary import bounded

Limits = tuple[float, float]
# Where a row lies, its column `edge`, and the shape that shows it.
EDGES = {
    "within": "circle",
    "above": "triangle-up",
    "below": "triangle-down",
    "left": "triangle-left",
    "right": "triangle-right",
}
WITHIN, ABOVE, BELOW, LEFT, RIGHT = EDGES


@dataclass(frozen=True)
class Span:
    """A quantitative axis: the column it shows, its title with the unit, and its limits.

    percent: shares of 1 with labels in percent. options: of alt.Axis. As the scale is clamped, a value
    beyond the limits is drawn at the edge.
    """

    column: str
    title: str | list[str] | None
    limits: Limits
    percent: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def x(self, column: str | None = None) -> alt.X:
        """Across; `column` is another one on the same axis, such as the bound of an interval."""
        return alt.X(f"{column or self.column}:Q", **self._channel())

    def y(self, column: str | None = None) -> alt.Y:
        """Up; `column` as for `x`."""
        return alt.Y(f"{column or self.column}:Q", **self._channel())

    @property
    def words(self) -> str:
        """The title in one line."""
        return self.title if isinstance(self.title, str) else " ".join(self.title or [])

    def _channel(self) -> dict[str, Any]:
        percent: dict[str, Any] = {"format": ".0%", "tickCount": 5} if self.percent else {}
        scale = alt.Scale(domain=list(self.limits), nice=False, zero=False, clamp=True)
        return {"title": self.title, "scale": scale, "axis": alt.Axis(**(percent | self.options))}


# Layers of models that differ in their number, from `rows.head_rows`.
DEPTH = Span(
    "depth", "Relative depth (layer / last layer)", (-0.03, 1.03), options={"tickCount": 6}
)


def axis_limits(
    *values: pl.Series,
    include: Iterable[float] = (0.0,),
    core: pl.Series | None = None,
    keep: float = 0.99,
    reach: float = 1.5,
) -> Limits:
    """Limits that show `include` and every value, except those that would stretch them beyond use.

    Excepted is a value farther than `reach` times the span of `include` and the central share `keep`
    of the values from that span. core: the values whose centre counts, if not `values` (an interval
    may be long where its point is ordinary). Missing values are left out.
    """
    numbers, extra = _numbers(*values), list(include)
    centre = numbers if core is None else _numbers(core)
    tails = np.quantile(centre, [(1 - keep) / 2, (1 + keep) / 2]) if len(centre) else (0.0, 0.0)
    low, high = min(*extra, *tails), max(*extra, *tails)
    fence = reach * (high - low)
    near = numbers[(numbers >= low - fence) & (numbers <= high + fence)]
    low, high = min([low, *near]), max([high, *near])
    margin = 0.06 * (high - low) or 0.5
    return float(low - margin), float(high + margin)


def _numbers(*values: pl.Series) -> NDArray[np.float64]:
    numbers = np.concatenate([value.cast(pl.Float64).drop_nulls().to_numpy() for value in values])
    return numbers[np.isfinite(numbers)]


def interval_limits(rows: pl.DataFrame, *columns: str, **options: Any) -> Limits:
    """`axis_limits` of columns with their intervals; only the values themselves stretch the centre."""
    ends = [rows[name] for column in columns for name in bounded(column)]
    core = pl.concat([rows[column].cast(pl.Float64).rename("core") for column in columns])
    return axis_limits(*ends, core=core, **options)


def fitted(
    rows: pl.DataFrame,
    column: str,
    title: str | list[str],
    *,
    bars: bool = True,
    percent: bool = False,
    ticks: int | None = None,
    **limits: Any,
) -> Span:
    """The axis that shows a column of these rows, with its intervals if `bars`; limits: of `axis_limits`."""
    options = {"tickCount": ticks} if ticks else {}
    fit = interval_limits(rows, column, **limits) if bars else axis_limits(rows[column], **limits)
    return Span(column, title, fit, percent=percent, options=options)


def share_axis(rows: pl.DataFrame, column: str, title: str, *, keep: float, ticks: int = 8) -> Span:
    """`fitted` to shares of a direct effect, 120 % either way at most: a share of next to nothing, as early
    layers of some models have, can be thousands of percent, and would hide all others."""
    low, high = interval_limits(rows, column, keep=keep)
    limits = max(low, -1.2), min(high, 1.2)
    return Span(column, title, limits, percent=True, options={"tickCount": ticks})


def placed(rows: pl.DataFrame, *, x: Span | None = None, y: Span | None = None) -> pl.DataFrame:
    """The rows with their `edge`: within both axes, or beyond which of them (of two, beyond y)."""
    edge = pl.lit(WITHIN)
    for span, below, above in ((x, LEFT, RIGHT), (y, BELOW, ABOVE)):
        if span is not None:
            value, (low, high) = pl.col(span.column), span.limits
            edge = pl.when(value < low).then(pl.lit(below)).otherwise(edge)
            edge = pl.when(value > high).then(pl.lit(above)).otherwise(edge)
    return rows.with_columns(edge=edge)


def n_beyond(points: pl.DataFrame) -> int:
    """How many of `placed` lie beyond an axis."""
    return points.filter(pl.col("edge").is_in([ABOVE, BELOW, LEFT, RIGHT])).height


def n_cut(points: pl.DataFrame, span: Span) -> int:
    """How many intervals of points within the axes, if they have any, reach beyond this one."""
    _, low, high = bounded(span.column)
    if low not in points.columns:
        return 0
    beyond = (pl.col(low) < span.limits[0]) | (pl.col(high) > span.limits[1])
    return points.filter(pl.col("edge") == WITHIN, beyond).height


def layer_axis(n_layers: int, *, first: int = 0, title: str | None = "Layer") -> Span:
    """Layers across, each a unit wide; a head's place in it is `place` (see `side_by_side`)."""
    options = {"tickCount": 15, "tickMinStep": 1, "grid": False, "format": "d"}
    return Span("place", title, (first - 0.5, n_layers - 0.5), options=options)


def side_by_side(n_heads: int) -> pl.Expr:
    """A head's place within its layer's unit of the axis, in order."""
    return (pl.col("layer") + (pl.col("head") - (n_heads - 1) / 2) * 0.8 / n_heads).alias("place")
