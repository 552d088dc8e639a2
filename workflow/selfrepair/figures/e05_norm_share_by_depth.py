"""E5: the final norm's part of self-repair as a share of the direct effect, for all models."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from ..vocabulary import ALL, TOP, TOP_SHARE, bounded
from . import words
from .axes import DEPTH, EDGES, WITHIN, Span, axis_limits, n_beyond, placed
from .marks import DASHED, DOTTED, facets, model_colour, points, rule
from .rows import head_rows, models_of

PAPER_SHARE = 0.3
# Beyond these bounds a share of the direct effect says only that the direct effect is near zero.
LOWEST, HIGHEST = -0.5, 1.25
PANELS = {
    TOP: f"Top tokens ({100 * TOP_SHARE:g} % with the largest direct effect)",
    ALL: "All tokens",
}
# What the lines show, per layer, and their dashes.
LINES = {"ratio of sums": [1, 0], "paper: mean of clipped shares": DASHED}
NEGATIVE = "direct effect ≤ 0"


def draw(heads: pl.DataFrame) -> alt.FacetChart:
    """Resample ablation, a panel for top tokens and, if they were swept, one for all tokens; of several
    models, a line of such panels for each.

    Lines: `layer_shares`. Points: each head's own ratio, with heads whose direct effect is not
    positive as crosses: there the ratio is no share of anything.

    Raises:
        InputError: a column is missing, or the table has no such rows.
    """
    rows, missing = _rows(heads)
    lines = layer_shares(rows)
    title, limits = "from_norm / direct effect (%)", _limits(rows, lines)
    y = Span("share", title, limits, percent=True, options={"tickCount": 8})
    rows, lines = placed(rows, y=y), placed(lines, y=y)
    no_share = (pl.col("direct_effect") <= 0) & (pl.col("edge") == WITHIN)
    dots = rows.with_columns(edge=pl.when(no_share).then(pl.lit(NEGATIVE)).otherwise("edge"))
    several = len(models_of(rows)) > 1
    chart = facets(
        _layers(dots, y),
        pl.concat([dots, lines], how="diagonal_relaxed"),
        size=(340, 170 if several else 340),
        columns=_columns(rows) if several else None,
    )
    off, drawn = n_beyond(lines), lines["share"].count()
    return words.titled(
        chart,
        "Share restored by the final norm",
        "Resample ablation; solid: sum of from_norm / sum of direct effect over a layer's heads with"
        " positive direct effect",
        f"Dotted: the {100 * PAPER_SHARE:g} % of the paper; crosses: heads with {NEGATIVE}",
        *words.left_out(heads),
        *[
            note
            for name in (TOP, ALL)
            for note in words.notes(rows.filter(selection=name), things=f"heads on {name} tokens")
        ],
        *words.notes(rows.clear(), missing=missing),
        *[f"Lines beyond the axis, drawn along its edge: {off:,} of their {drawn:,} points"]
        * (off > 0),
    )


def _columns(rows: pl.DataFrame) -> int:
    """A row of panels for each model, unless one lacks a selection that others have."""
    selections = rows.group_by("model").agg(pl.col("selection").n_unique())["selection"]
    return int(selections.max()) if selections.n_unique() == 1 else 1  # type: ignore[arg-type]


def _layers(rows: pl.DataFrame, y: Span) -> list[alt.Chart]:
    """The marks of a panel, whose data are rows of heads and rows of lines (with a `line`)."""
    models = models_of(rows)
    colour = model_colour(models)
    if len(models) > 1:  # headings name them
        colour = colour.legend(None)
    place: dict[str, Any] = {"x": DEPTH.x(), "y": y.y(), "color": colour}
    tooltip = [
        *words.HEAD_TIP,
        *words.interval_tip("share", "Share", unit="of 1"),
        *words.interval_tip("direct_effect", "Direct effect"),
    ]
    dots = points(rows, "panel", shapes=EDGES | {NEGATIVE: "cross"})
    legend = alt.Legend(symbolType="stroke", symbolSize=300, symbolStrokeWidth=2)
    scale = alt.Scale(domain=list(LINES), range=list(LINES.values()))
    dash = alt.StrokeDash("line:N", title="Line, per layer", scale=scale, legend=legend)
    curves = (
        alt.Chart().mark_line(strokeWidth=2.2, strokeJoin="round").encode(**place, strokeDash=dash)
    )
    return [
        rule(y=0.0),
        rule(y=PAPER_SHARE, color="black", strokeDash=DOTTED),
        dots.encode(**place, tooltip=tooltip).transform_filter("!isValid(datum.line)"),
        curves.transform_filter("isValid(datum.line)"),
    ]


def layer_shares(rows: pl.DataFrame) -> pl.DataFrame:
    """The share of the direct effect that the norm restores, per layer, by both definitions.

    Ratio of sums: sum of from_norm / sum of direct_effect over the layer's heads and their tokens. A
    head's own ratio explodes where its direct effect is near zero, and so does any mean of such
    ratios; in a ratio of sums those heads weigh next to nothing in the denominator. Only heads with
    a positive mean direct effect enter: otherwise heads that lower the target's logit cancel those
    that raise it and the denominator passes through zero again. The price: where direct effects are
    mostly noise (all tokens, early layers), keeping the positive ones makes the denominator larger
    and the share smaller. A layer without a head of positive direct effect has no share (null).

    The paper's: the mean over all heads of the layer of `from_norm_share_clipped`, itself a mean over
    tokens of shares clipped to 0..1. It cannot be negative and so lies above zero even for noise.
    """
    positive = pl.col("direct_effect") > 0
    restored, effect = (
        (pl.col(name) * pl.col("n_tokens")).filter(positive).sum()
        for name in ("from_norm", "direct_effect")
    )
    ratio, clipped = LINES
    groups = rows.group_by("model", "panel", "layer", "depth", maintain_order=True)
    shares = groups.agg(
        pl.when(effect > 0).then(restored / effect).alias(ratio),
        pl.col("from_norm_share_clipped").mean().alias(clipped),
    )
    keys = ["model", "panel", "layer", "depth"]
    return shares.unpivot([ratio, clipped], index=keys, variable_name="line", value_name="share")


def caption(heads: pl.DataFrame) -> str:
    rows, _ = _rows(heads)
    samples, left_out = [], []
    for (name,), part in rows.group_by("selection", maintain_order=True):
        negative = part.filter(pl.col("direct_effect") <= 0).height
        samples.append(f"for {name} tokens (measured on {words.sample(part)})")
        left_out.append(f"{negative:,} of {part.height:,} on {name} tokens")
    return (
        "Removing a head's output also changes the final norm's scale, which restores part of its"
        f" direct effect; shown is that part as a share, for {words.listed(models_of(rows))} under"
        f" resample ablation, {words.listed(samples)}; top tokens of a head are {words.LARGEST}. Solid"
        " lines divide sums over a layer's heads with positive direct effect (of the heads,"
        f" {words.listed(left_out)} are left out; crosses if within the axis), because a single"
        " head's ratio, a point, explodes where its direct effect is near zero; dashed lines are"
        " the paper's mean of per-token shares clipped to 0..1. The dotted rule is the"
        f" {100 * PAPER_SHARE:g} % that the paper reports, and triangles are heads beyond the axis."
    )


def _rows(heads: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The rows of top tokens, and of all tokens if they were swept, with `panel`, one by one, and `share`."""
    rows, missing = head_rows(
        "E5",
        heads,
        ("from_norm_share", "from_norm", "direct_effect", "from_norm_share_clipped"),
        bounds=("from_norm_share", "direct_effect"),
        selections=(TOP, ALL),
    )
    names = {name: name.replace("from_norm_share", "share") for name in bounded("from_norm_share")}
    rows = rows.rename(names).with_columns(panel=pl.col("selection").replace(PANELS))
    if len(models_of(rows)) > 1:
        rows = rows.with_columns(panel=pl.format("{}: {} tokens", "model", "selection"))
    models = rows.group_by("model", maintain_order=True)
    order: dict[str, Any] = {"descending": True, "maintain_order": True}
    return pl.concat(part.sort("selection", **order) for _, part in models), missing


def _limits(rows: pl.DataFrame, lines: pl.DataFrame) -> tuple[float, float]:
    """Limits for the heads' shares on top tokens and the lines of both panels.

    Not for the heads on all tokens, whose ratios have no scale, and never beyond LOWEST and HIGHEST.
    """
    shares = rows.filter(pl.col("direct_effect") > 0, selection=TOP)["share"]
    low, high = axis_limits(shares, lines["share"], include=(0.0, 0.5), keep=0.96, reach=0.1)
    return max(low, LOWEST), min(high, HIGHEST)
