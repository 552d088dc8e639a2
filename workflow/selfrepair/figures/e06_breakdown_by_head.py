"""E6: direct effect, ablated direct effect, and the terms of self-repair, head by head."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from ..tables.terms import POST_NORMS, terms_of
from . import words
from .axes import Span, interval_limits, layer_axis, n_cut, placed, side_by_side
from .marks import LINES, MOST_BARS, headings_of, layer_bands, points, rule, whiskers
from .rows import count_of, head_rows, layer_means, stacked
from .theme import AMBER, BLACK, BLUE, GREEN, GREY, ORANGE, PINK

EFFECTS = ("direct_effect", "ablated_direct_effect")
ROWS = {
    "direct_effect": ("Direct effect", BLACK),
    "ablated_direct_effect": ("Direct effect,\nablated", GREY),
    "from_heads": ("From heads", BLUE),
    "from_mlps": ("From MLPs", PINK),
    "from_post_norms": ("From post-norms", AMBER),
    "from_norm": ("From norm", GREEN),
}
WIDTH, HEIGHT = 760, 110


def draw(heads: pl.DataFrame) -> alt.VConcatChart:
    """One model, resample ablation, top tokens, all in logits.

    Within a layer the heads stand side by side in order; the bar across a layer is its mean. The two
    direct effects share one scale and the terms another, so that heights compare. What post-norms make
    up for has a row if the model has any.

    Raises:
        InputError: more than one model, a column is missing, or the table has no such rows.
    """
    rows, missing = _rows(heads)
    rows = rows.with_columns(side_by_side(count_of(heads, "head")))
    terms = terms_of(rows)
    groups = [_placed(rows, names) for names in (EFFECTS, terms)]
    bars = rows.height <= MOST_BARS
    # One scale for both parts: Vega-Lite would merge two of them, and mix up their colours.
    names, colours = zip(*(ROWS[name] for name in (*EFFECTS, *terms)), strict=True)
    scale = alt.Scale(domain=list(names), range=list(colours))
    colour = alt.Color("panel:N", scale=scale, legend=None)
    parts = [
        _facet(part, y, colour, n_layers=count_of(heads, "layer"), bars=bars, last=last)
        for (part, y), last in zip(groups, (False, True), strict=True)
    ]
    marked = pl.concat([part for part, _ in groups])
    return words.titled(
        alt.vconcat(*parts, spacing=8),
        "What makes up for each head",
        f"{rows['model'][0]}, resample ablation, {words.FROM_TOP_TOKENS}",
        "Point: head, in order within its layer; bar: layer mean; largest head named",
        *words.left_out(heads),
        *words.notes(marked, missing=missing, cut=sum(n_cut(part, y) for part, y in groups) * bars),
    )


def _placed(rows: pl.DataFrame, names: tuple[str, ...]) -> tuple[pl.DataFrame, Span]:
    """A row per head and quantity, and the axis that these quantities share."""
    means = [mean for name in names for mean in layer_means(rows, name)[name]]
    limits = interval_limits(rows, *names, include=[0.0, *means])
    y = Span("value", "logits", limits, options={"tickCount": 4, "minExtent": 30})
    keys = ("model", "layer", "head", "n_tokens", "depth", "place")
    size = pl.col("value").abs()
    largest = pl.int_range(pl.len()) == size.arg_max()
    part = placed(stacked(rows, names, *keys), y=y).with_columns(
        panel=pl.col("quantity").replace_strict({name: words for name, (words, _) in ROWS.items()}),
        name=pl.when(largest.over("quantity")).then(pl.format("L{}H{}", "layer", "head")),
    )
    return part, y


def _facet(
    rows: pl.DataFrame, y: Span, colour: alt.Color, *, n_layers: int, bars: bool, last: bool
) -> alt.FacetChart:
    x = layer_axis(n_layers, title="Layer" if last else None)
    place: dict[str, Any] = {"x": x.x(), "color": colour}
    tooltip = [*words.HEAD_TIP, *words.interval_tip("value", "Value")]
    side = alt.expr("datum.depth > 0.5 ? 'right' : 'left'")
    shift = alt.expr("datum.depth > 0.5 ? -6 : 6")
    label = alt.Chart().mark_text(align=side, dx=shift, dy=-5, fontSize=11)
    mean = alt.Chart().mark_tick(
        orient="horizontal", size=0.9 * WIDTH / n_layers, thickness=2.5, color=ORANGE
    )
    layers = [
        layer_bands(n_layers),
        rule(y=0.0),
        *[whiskers(y).encode(**place)] * bars,
        points(rows, "panel").encode(**place, y=y.y(), tooltip=tooltip),
        mean.encode(x=x.x("layer"), y=y.y("mean(value)")),
        label.encode(x=x.x(), y=y.y(), text="name:N").transform_filter("isValid(datum.name)"),
    ]
    chart = alt.LayerChart(layer=layers, data=rows).properties(width=WIDTH, height=HEIGHT)
    return chart.facet(
        row=alt.Row("panel:N", title=None, sort=headings_of(rows), header=LINES), spacing=8
    )


def caption(heads: pl.DataFrame) -> str:
    rows, _ = _rows(heads)
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


def _rows(heads: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    return head_rows("E6", heads, tuple(ROWS), one_model=True)
