"""E6: direct effect, ablated direct effect, and the terms of self-repair, head by head."""

from __future__ import annotations

import altair as alt
import polars as pl

from ..tables.terms import POST_NORMS, terms_of
from . import marks, words
from .axes import Span, interval_limits, layer_axis, placed, side_by_side
from .rows import count_of, head_rows, layer_means, stacked
from .theme import BLACK, GREY, ORANGE

EFFECTS = ("direct_effect", "ablated_direct_effect")
TERMS = {name: ink for name, (_, ink) in marks.PARTS.items() if name != "self_repair"}
INKS = dict(zip(EFFECTS, (BLACK, GREY), strict=True)) | TERMS
ROWS = {
    "direct_effect": "Direct effect",
    "ablated_direct_effect": "Direct effect,\nablated",
    "from_heads": "From heads",
    "from_mlps": "From MLPs",
    "from_post_norms": "From post-norms",
    "from_norm": "From norm",
}
WIDTH = 760


def draw(heads: pl.DataFrame) -> alt.VConcatChart:
    """One model, resample ablation, top tokens, all in logits.

    Within a layer the heads stand side by side in order; the bar across a layer is its mean. The two
    direct effects share one scale and the terms another, so that heights compare. What post-norms make
    up for has a row if the model has any.
    """
    rows, missing = head_rows("E6", heads, tuple(ROWS), one_model=True)
    rows = rows.with_columns(side_by_side(count_of(heads, "head")))
    terms = terms_of(rows)
    groups = [_placed(rows, names) for names in (EFFECTS, terms)]
    bars, n_layers = rows.height <= marks.MOST_BARS, count_of(heads, "layer")
    # One scale for both parts: Vega-Lite would merge two of them, and mix up their colours.
    inks = {ROWS[name]: INKS[name] for name in (*EFFECTS, *terms)}
    colour = marks.inks("panel", None, inks, legend=None)
    parts = [
        _facet(part, layer_axis(n_layers, title=title), y, colour, bars=bars)
        for (part, y), title in zip(groups, (None, "Layer"), strict=True)
    ]
    return words.titled(
        alt.vconcat(*parts, spacing=8),
        "What makes up for each head",
        f"{rows['model'][0]}, resample ablation, {words.FROM_TOP_TOKENS}",
        "Point: head, in order within its layer; bar: layer mean; largest head named",
        *words.left_out(heads),
        *words.notes_of(groups, missing=missing, bars=bars),
    )


def _placed(rows: pl.DataFrame, names: tuple[str, ...]) -> tuple[pl.DataFrame, Span]:
    """A row per head and quantity, and the axis that these quantities share."""
    means = [mean for name in names for mean in layer_means(rows, name)[name]]
    limits = interval_limits(rows, *names, include=[0.0, *means])
    y = Span("value", "logits", limits, options={"tickCount": 4, "minExtent": 30})
    part = stacked(rows, names, "model", "layer", "head", "n_tokens", "depth", "place")
    largest = pl.int_range(pl.len()) == pl.col("value").abs().arg_max()
    return placed(part, y=y).with_columns(
        panel=pl.col("quantity").replace_strict(ROWS),
        name=pl.when(largest.over("quantity")).then(pl.format("L{}H{}", "layer", "head")),
    ), y


def _facet(
    rows: pl.DataFrame, x: Span, y: Span, colour: alt.Color, *, bars: bool
) -> alt.FacetChart:
    n_layers = count_of(rows, "layer")
    side = alt.expr("datum.depth > 0.5 ? 'right' : 'left'")
    shift = alt.expr("datum.depth > 0.5 ? -6 : 6")
    label = alt.Chart().mark_text(align=side, dx=shift, dy=-5, fontSize=11)
    look: marks.Look = {"orient": "horizontal", "size": 0.9 * WIDTH / n_layers, "thickness": 2.5}
    mean = alt.Chart().mark_tick(color=ORANGE, **look).encode(x=x.x("layer"), y=y.y("mean(value)"))
    tooltip = words.tips(rows, *words.HEAD, "value")
    layers = [
        marks.layer_bands(n_layers),
        marks.rule(y=0.0),
        *marks.estimates(rows, y, "panel", bars=bars, x=x.x(), color=colour, tooltip=tooltip),
        mean,
        label.encode(x=x.x(), y=y.y(), text="name:N").transform_filter("isValid(datum.name)"),
    ]
    row = alt.Row("panel:N", title=None, sort=marks.headings_of(rows))
    return alt.LayerChart(layer=layers, data=rows, width=WIDTH, height=110).facet(
        row=row, spacing=8
    )


def caption(heads: pl.DataFrame) -> str:
    rows, _ = head_rows("E6", heads, tuple(ROWS), one_model=True)
    scales = ["the scales of the sublayers' post-norms"] * (POST_NORMS in terms_of(rows))
    sources = ["other heads", "MLPs", *scales, "the final norm's scale"]
    return (
        f"The attention heads of {rows['model'][0]} ({words.number_of(rows, heads)}) under resample"
        f" ablation, averaged over {words.FROM_LARGEST}: {words.sample(rows)}. The first"
        " two rows are the head's direct effect on the target token's logit before and after"
        f" ablation; the others are what {words.listed(sources)} then make up for, and add up to"
        " self-repair: positive restores the logit, negative adds to the loss. A point is one head, in"
        " order within its layer, a bar the layer's mean; the first two rows share a scale, the others"
        " another."
    )
