"""E12: the share of the direct effect that heads, MLPs and norms make up for, for all models."""

from __future__ import annotations

import altair as alt
import polars as pl

from ..tables.terms import POST_NORMS
from ..vocabulary import QUARTERS
from . import marks, words
from .axes import WITHIN, placed, share_axis
from .rows import models_of, part_rows

PARTS = {f"{name}_share": part for name, (part, _) in marks.PARTS.items()}
TITLE = "What makes up for ablated heads"
TOTAL = PARTS["self_repair_share"]


def draw(depth: pl.DataFrame) -> alt.FacetChart:
    """Resample ablation, top tokens, a panel per model.

    Bars per quarter of the layers (ratio of means over their heads) with 95 % bootstrap intervals
    over prompts, a diamond for all of them together. A bar for post-norms only if a model has any, and
    only in its panel.
    """
    rows, missing, left_out = part_rows("E12", depth, PARTS, depths=QUARTERS)
    y = share_axis(rows, "value", "Share of the direct effect (%)", keep=0.95)
    rows, inks = placed(rows, y=y), marks.part_inks(rows)
    axis = alt.Axis(labelAngle=0, grid=False, labelExpr="replace(datum.label, ' quarter', '')")
    place: marks.Look = {
        "x": alt.X("depth:O", title="Quarter of the layers", sort=list(QUARTERS), axis=axis),
        "xOffset": alt.XOffset("part:N", scale=alt.Scale(domain=list(inks))),
    }
    look: marks.Look = place | {
        "y": y.y(),
        "color": marks.inks("part", "From", inks, legend=alt.Legend(symbolType="square")),
        "tooltip": words.tips(rows, "model", "depth", "part", "n_heads", y),
    }
    total = alt.Chart().mark_point(filled=True, shape="diamond", size=75, opacity=1)
    beyond = marks.points(rows).mark_point(filled=True, opacity=1, stroke="white", strokeWidth=1)
    layers = [
        alt.Chart()
        .mark_bar()
        .encode(**look, y2=alt.datum(0))
        .transform_filter(f"datum.part != '{TOTAL}'"),
        marks.rule(y=0.0),
        marks.whiskers(y, color="black", strokeOpacity=1, strokeWidth=1.2).encode(**place),
        total.encode(**look).transform_filter(
            f"datum.part == '{TOTAL}' && datum.edge == '{WITHIN}'"
        ),
        beyond.encode(**look).transform_filter(f"datum.edge != '{WITHIN}'"),
    ]
    return words.titled(
        marks.facets(layers, rows, size=(300, 220), by="model"),
        TITLE,
        f"Resample ablation, {words.FROM_TOP_TOKENS}",
        "Share of the direct effect of a quarter's heads; whisker: 95 % interval; diamond: all",
        *words.left_out_groups(left_out),
        *words.notes(rows, y, missing=missing, things="bars"),
    )


def caption(depth: pl.DataFrame) -> str:
    rows, _, left_out = part_rows("E12", depth, PARTS, depths=QUARTERS)
    some = PARTS[f"{POST_NORMS}_share"] in set(rows["part"])
    what = " Post-norms, which scale what a sublayer writes, have a bar in models with any." * some
    return (
        f"What makes up for an ablated attention head, in {words.listed(models_of(rows))} under"
        f" resample ablation, on {words.FROM_LARGEST}:"
        f" {words.sample(rows, unit='quarter')}. {words.REPAIR} Each bar is a part of it as a share of"
        " the heads' direct effect, for a quarter of the model's layers: a ratio of means over the"
        " quarter's heads, so 100 % would restore all that the heads contributed directly and a"
        " negative share adds to the loss. The bars add up to the black diamond; whiskers are 95 %"
        f" bootstrap intervals over prompts.{what}"
        + "".join(f" {line}." for line in words.left_out_groups(left_out))
    )
