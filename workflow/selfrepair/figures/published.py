"""The authors' released numbers against a study's, head by head.

The table has a row per (model, quantity, layer, head) with `published`, `measured` and the bounds of
the measured value's 95 % interval; effects are in logits, shares in 0..1.
"""

from __future__ import annotations

import math
from dataclasses import replace

import altair as alt
import polars as pl

from ..vocabulary import bounded
from . import marks, words
from .axes import Span, axis_limits, placed
from .rows import count_of, table_rows

# The panels, line by line: what is lost, what makes up for it, and that as the paper's share.
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
COLUMNS = ("model", "quantity", "layer", "head", "published", *bounded("measured"))


def draw(comparison: pl.DataFrame) -> alt.VConcatChart:
    """Each head's published value (x) against the measured one (y), a panel per quantity.

    One model. Both axes of a panel have the same limits, dashed is y = x. Bars are our 95 % bootstrap
    intervals over prompts, where the quantity has one and there are not too many heads to tell them
    apart. Correlations are over the heads drawn, triangles included.
    """
    rows, missing = _rows(comparison)
    bars, colour = marks.few(rows, "quantity"), marks.layer_colour(count_of(rows, "layer"))
    drawn, lines = [], []
    for line in PANELS:
        panels = []
        for name in [name for name in line if name in rows["quantity"]]:
            x, y = _axes(rows.filter(quantity=name))
            drawn.append((placed(rows.filter(quantity=name), x=x, y=y), y))
            panels.append(_panel(drawn[-1][0], x, y, line[name], colour=colour, bars=bars))
        lines += [alt.hconcat(*panels, spacing=24)] if panels else []
    return words.titled(
        alt.vconcat(*lines, spacing=24),
        "Measured against published",
        f"{rows['model'][0]}, resample ablation, {words.FROM_TOP_TOKENS}; point: head, dashed: y = x",
        *words.notes_of(drawn, missing=missing, bars=bars),
    )


def _axes(rows: pl.DataFrame) -> tuple[Span, Span]:
    """Both axes of a quantity's panel, with the same limits."""
    both = pl.concat([rows[name].rename("value") for name in ("published", "measured")])
    limits = axis_limits(both, rows["measured_low"], rows["measured_high"], core=both)
    share = rows["quantity"][0].endswith("_share_clipped")
    unit = "share" if share else "logits"
    # So that the panels of a column line up.
    look: marks.Look = {"tickCount": 5, "minExtent": 38}
    x = Span("published", f"Published ({unit})", limits, percent=share, options={"tickCount": 5})
    return x, replace(x, column="measured", title=f"Measured ({unit})", options=look)


def _panel(
    rows: pl.DataFrame, x: Span, y: Span, title: str, *, colour: alt.Color, bars: bool
) -> alt.LayerChart:
    tooltip = words.tips(rows, "model", "layer", "head", x, y)
    layers = [
        marks.rule(y=0.0),
        marks.line_through_zero(1.0, x, y),
        *marks.estimates(rows, y, bars=bars, x=x.x(), color=colour, tooltip=tooltip),
    ]
    r = rows.select(pl.corr("published", "measured")).item()
    known = f"r = {r:.2f}" if r is not None and math.isfinite(r) else "r undefined"
    heading = words.heading(title, f"{known}, {rows.height:,} heads")
    return alt.LayerChart(layer=layers, data=rows, width=190, height=190, title=heading)


def caption(comparison: pl.DataFrame) -> str:
    rows, _ = _rows(comparison)
    counts = rows.group_by("quantity").len()["len"]
    bounds = rows.drop_nulls(["measured_low", "measured_high"]).height > 0 and marks.few(
        rows, "quantity"
    )
    bars = " bars are 95 % bootstrap intervals over this study's prompts;" * bounds
    return (
        f"A point is an attention head of {rows['model'][0]} ({words.amount(counts)} per panel)"
        f" under resample ablation, averaged over {words.FROM_LARGEST}."
        " Across: the value that the paper's authors released; up: the value of this study, from its"
        f" own sample of text;{bars} colour is the head's layer. On the dashed line y = x the two"
        " agree; a tilted cloud means another scale, a shifted one an offset, and r is the"
        " correlation over the heads of the panel. Effects are in logits; clipped shares are means"
        " of per-token ratios to the direct effect, cut to 0..1 as in the paper."
    )


def _rows(comparison: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    return table_rows(
        "published",
        comparison,
        "comparison",
        columns=COLUMNS,
        finite=("published", "measured"),
        only={"quantity": [name for line in PANELS for name in line]},
    )
