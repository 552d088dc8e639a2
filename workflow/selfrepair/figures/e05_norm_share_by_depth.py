"""E5: the final norm's part of self-repair as a share of the direct effect, for all models."""

from __future__ import annotations

import altair as alt
import polars as pl

from ..vocabulary import ALL, TOP, bounded
from . import marks, words
from .axes import DEPTH, EDGES, WITHIN, Span, axis_limits, n_beyond, placed
from .rows import head_rows, models_of

PAPER_SHARE = 0.3
# Beyond these bounds a share of the direct effect says only that the direct effect is near zero.
LOWEST, HIGHEST = -0.5, 1.25
# What the lines show, per layer, and their dashes.
LINES = {"ratio of sums": [1, 0], "paper: mean of clipped shares": marks.DASHED}
NEGATIVE = "direct effect ≤ 0"


def draw(heads: pl.DataFrame) -> alt.FacetChart:
    """Resample ablation, a panel for top tokens and, if they were swept, one for all tokens, of each model.

    Lines: `layer_shares`. Points: each head's own ratio, with heads whose direct effect is not
    positive as crosses: there the ratio is no share of anything.
    """
    rows, missing = _rows(heads)
    lines, models = layer_shares(rows), models_of(rows)
    # Not for heads on all tokens, whose ratios have no scale.
    shares = rows.filter(pl.col("direct_effect") > 0, selection=TOP)["share"]
    low, high = axis_limits(shares, lines["share"], include=(0.0, 0.5), keep=0.96, reach=0.1)
    limits = max(low, LOWEST), min(high, HIGHEST)
    title = "from_norm / direct effect (%)"
    y = Span("share", title, limits, percent=True, options={"tickCount": 8})
    rows, lines = placed(rows, y=y), placed(lines, y=y)
    no_share = (pl.col("direct_effect") <= 0) & (pl.col("edge") == WITHIN)
    dots = rows.with_columns(edge=pl.when(no_share).then(pl.lit(NEGATIVE)).otherwise("edge"))
    # Headings name the models.
    colour = marks.model_colour(models).legend(None)
    place: marks.Look = {"x": DEPTH.x(), "y": y.y(), "color": colour}
    legend = alt.Legend(symbolType="stroke", symbolSize=300, symbolStrokeWidth=2)
    scale = alt.Scale(domain=list(LINES), range=list(LINES.values()))
    dash = alt.StrokeDash("line:N", title="Line, per layer", scale=scale, legend=legend)
    points = marks.points(dots, "panel", shapes=EDGES | {NEGATIVE: "cross"})
    tooltip = words.tips(rows, *words.HEAD, y, "direct_effect")
    curves = alt.Chart().mark_line(strokeWidth=2.2, strokeJoin="round")
    layers = [
        marks.rule(y=0.0),
        marks.rule(y=PAPER_SHARE, color="black", strokeDash=marks.DOTTED),
        points.encode(**place, tooltip=tooltip).transform_filter("!isValid(datum.line)"),
        curves.encode(**place, strokeDash=dash).transform_filter("isValid(datum.line)"),
    ]
    both = pl.concat([dots, lines], how="diagonal_relaxed")
    size = (340, 170 if models[1:] else 340)
    off, drawn = n_beyond(lines), lines["share"].count()
    return words.titled(
        marks.facets(layers, both, size=size, columns=rows["selection"].n_unique()),
        "Share restored by the final norm",
        "Resample ablation; solid: sum of from_norm / sum of direct effect over a layer's heads with"
        " positive direct effect",
        f"Dotted: the {100 * PAPER_SHARE:g} % of the paper; crosses: heads with {NEGATIVE}",
        *words.left_out(heads),
        *words.notes(rows.filter(selection=TOP), things=f"heads on {TOP} tokens"),
        *words.notes(rows.filter(selection=ALL), things=f"heads on {ALL} tokens"),
        *words.notes(rows.clear(), missing=missing),
        *[f"Lines beyond the axis, drawn along its edge: {off:,} of their {drawn:,} points"][:off],
    )


def layer_shares(rows: pl.DataFrame) -> pl.DataFrame:
    """The share of the direct effect that the norm restores, per layer, by both definitions.

    Ratio of sums: sum of from_norm / sum of direct_effect over the layer's heads and their tokens. A
    head's own ratio explodes where its direct effect is near zero, and so does any mean of such ratios; in
    a ratio of sums those heads weigh next to nothing. Only heads with a positive mean direct effect enter:
    otherwise heads that lower the target's logit cancel those that raise it, and the denominator passes
    through zero again. The price: where direct effects are mostly noise (all tokens, early layers), keeping
    the positive ones makes the share smaller. A layer without such a head has no share (null).

    The paper's: the mean over all heads of the layer of `from_norm_share_clipped`, itself a mean over
    tokens of shares clipped to 0..1. It cannot be negative and so lies above zero even for noise.
    """
    restored, effect = (
        (pl.col(name) * pl.col("n_tokens")).filter(pl.col("direct_effect") > 0).sum()
        for name in ("from_norm", "direct_effect")
    )
    ratio, clipped = LINES
    keys = ["model", "panel", "layer", "depth"]
    shares = rows.group_by(keys, maintain_order=True).agg(
        pl.when(effect > 0).then(restored / effect).alias(ratio),
        pl.col("from_norm_share_clipped").mean().alias(clipped),
    )
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
    """The rows of top tokens, and of all tokens if they were swept, with `panel` and `share`."""
    columns = ("from_norm_share", "from_norm", "direct_effect", "from_norm_share_clipped")
    bounds = ("from_norm_share", "direct_effect")
    rows, missing = head_rows("E5", heads, columns, bounds=bounds, selections=(TOP, ALL))
    rows = rows.rename(dict(zip(bounded("from_norm_share"), bounded("share"), strict=True)))
    return rows.with_columns(panel=pl.format("{}: {} tokens", "model", "selection")), missing
