"""The authors' released numbers against a study's: pure functions of the `comparison` table.

No model, no torch, no paths. The table has one row per (model, quantity, layer, head) with
`published`, `measured` and the bounds of the measured value's 95 % interval (`published.compare`);
effects are in logits, shares in 0..1. "Paper" is Rushing & Nanda, "Explorations of Self-Repair in
Language Models" (ICML 2024).
"""

from __future__ import annotations

import math

import altair as alt
import polars as pl

from ..errors import InputError
from .plotting import (
    HEAD_TIP,
    Limits,
    amount,
    axis_limits,
    axis_notes,
    axis_scale,
    bars_fit,
    chart_of,
    count_of,
    diagonal,
    edge_shape,
    finish,
    interval_bars,
    interval_tip,
    layer_colour,
    level_rule,
    n_cut,
    n_outside,
    percent_axis,
    placed_on_both,
    plain_tip,
    point_marks,
    table_rows,
    titled,
)

FIGURE = "published"
# The panels, row by row: what is lost, what makes up for it, and that as the paper's share.
PANELS = (
    {
        "direct_effect": "Direct effect",
        "ablated_direct_effect": "Direct effect, ablated",
        "delta_logit": "Change of the logit",
        "self_repair": "Self-repair",
    },
    {"from_heads": "From heads", "from_mlps": "From MLPs", "from_norm": "From norm"},
    {
        "from_heads_share_clipped": "From heads, clipped share",
        "from_mlps_share_clipped": "From MLPs, clipped share",
        "from_norm_share_clipped": "From norm, clipped share",
    },
)
COLUMNS = (
    *("model", "quantity", "layer", "head"),
    *("published", "measured", "measured_low", "measured_high"),
)
SIDE = 190


def published_against_measured(comparison: pl.DataFrame) -> alt.VConcatChart:
    """Each head's published value (x) against the measured one (y), a panel per quantity.

    One model. Both axes of a panel have the same limits, dashed is y = x; logits, or shares of the
    direct effect. Bars are our 95 % bootstrap intervals over prompts, where the quantity has one
    and there are not too many heads to tell them apart. Correlations are over the heads drawn,
    triangles included.

    Raises:
        InputError: more than one model, a column is missing, an unknown quantity, or no row with
            both values.
    """
    rows, missing = _rows(comparison)
    parts = {name: _placed(rows.filter(quantity=name)) for name in _drawn(rows)}
    shape = edge_shape(*(points for points, _ in parts.values()))
    colour = layer_colour(count_of(rows, "layer") - 1)
    lines = [
        alt.hconcat(
            *(_panel(*parts[name], title, colour=colour, shape=shape) for name, title in line),
            spacing=24,
        )
        for row in PANELS
        if (line := [(name, title) for name, title in row.items() if name in parts])
    ]
    subtitle = [
        f"{rows['model'][0]}, resample ablation, each head's top 2 % of tokens;"
        " point: head, dashed: y = x",
        *_notes(list(parts.values()), missing=missing),
    ]
    return finish(alt.vconcat(*lines, spacing=24), "Measured against published", subtitle)


def published_caption(comparison: pl.DataFrame) -> str:
    """Three to four sentences for readers who do not know the paper; the numbers are the table's.

    Raises:
        InputError: a table that the figure refuses.
    """
    rows, _ = _rows(comparison)
    counts = rows.group_by("quantity").len()["len"]
    bounded = rows.drop_nulls(["measured_low", "measured_high"]).height > 0
    bars = (
        " bars are 95 % bootstrap intervals over this study's prompts;"
        if bounded and bars_fit(rows, "quantity")
        else ""
    )
    return (
        f"A point is an attention head of {rows['model'][0]} ({amount(counts)} per panel) under"
        " resample ablation, averaged over the 2 % of tokens on which its direct effect is largest."
        " Across: the value that the paper's authors released; up: the value of this study, from its"
        f" own sample of text;{bars} colour is the head's layer. On the dashed line y ="
        " x the two agree; a tilted cloud means another scale, a shifted one an offset, and r is"
        " the correlation over the heads of the panel. Effects are in logits; clipped shares are"
        " means of per-token ratios to the direct effect, cut to 0..1 as in the paper."
    )


def _rows(comparison: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    finite = ("published", "measured")
    rows, missing = table_rows(FIGURE, comparison, "comparison", columns=COLUMNS, finite=finite)
    known = [name for row in PANELS for name in row]
    unknown = sorted(set(rows["quantity"]) - set(known))
    if unknown:
        raise InputError(
            f"{FIGURE}: no panel for {', '.join(unknown)}; quantities are {', '.join(known)}"
        )
    return rows, missing


def _drawn(rows: pl.DataFrame) -> list[str]:
    """The quantities that have a panel, in order."""
    present = set(rows["quantity"])
    return [name for row in PANELS for name in row if name in present]


def _placed(rows: pl.DataFrame) -> tuple[pl.DataFrame, Limits]:
    """The points of a panel and the limits of both its axes."""
    points = pl.concat([rows[name].rename("value") for name in ("published", "measured")])
    ends = [rows[name].drop_nulls().rename("value") for name in ("measured_low", "measured_high")]
    limits = axis_limits(pl.concat([points, *ends]), required=points)
    placed = placed_on_both(rows, "published", "measured", x_domain=limits, y_domain=limits)
    return placed, limits


def _panel(
    points: pl.DataFrame,
    limits: Limits,
    title: str,
    *,
    colour: alt.Color,
    shape: alt.Shape,
) -> alt.LayerChart:
    share = points["quantity"][0].endswith("_share_clipped")
    unit = "share" if share else "logits"
    look = percent_axis if share else alt.Axis
    across, up = look(tickCount=5), look(tickCount=5, minExtent=38)  # so that columns line up
    scale = axis_scale(limits)
    x = alt.X("published_drawn:Q", title=f"Published ({unit})", scale=scale, axis=across)
    y = alt.Y("measured_drawn:Q", title=f"Measured ({unit})", scale=scale, axis=up)
    tooltip = [
        *HEAD_TIP[:3],
        plain_tip("published", f"Published ({unit})", ".3f"),
        *interval_tip("measured", "Measured", unit=unit),
    ]
    layers = [level_rule(0.0), diagonal(limits, limits)]
    bars = interval_bars(points, "measured", limits)
    if bars_fit(points) and bars.height:
        low = alt.Y("measured_low:Q", title=f"Measured ({unit})", scale=scale, axis=up)
        marks = chart_of(bars).mark_rule(strokeWidth=0.8, strokeOpacity=0.4)
        layers.append(marks.encode(x=x, y=low, y2="measured_high", color=colour))
    dots = point_marks(points)
    layers.append(dots.encode(x=x, y=y, color=colour, shape=shape, tooltip=tooltip))
    return titled(alt.LayerChart(layer=layers), title, _correlation(points), side=SIDE)


def _correlation(points: pl.DataFrame) -> str:
    """The line of numbers under a panel's title."""
    r = points.select(pl.corr("published", "measured")).item()
    words = "r undefined" if r is None or not math.isfinite(r) else f"r = {r:.2f}"
    return f"{words}, {points.height:,} heads"


def _notes(parts: list[tuple[pl.DataFrame, Limits]], *, missing: int) -> list[str]:
    """What is beyond an axis, cut, or missing, over all panels."""
    return axis_notes(
        outside=sum(n_outside(points) for points, _ in parts),
        drawn=sum(points.height for points, _ in parts),
        missing=missing,
        cut=sum(n_cut(points, "measured", limits) for points, limits in parts if bars_fit(points)),
    )
