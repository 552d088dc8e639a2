"""E8: how the change of the neurons' direct effects is spread, most repairing neuron first.

A neuron's repair is by how much its direct effect rises when the head is ablated.
"""

from __future__ import annotations

import altair as alt
import numpy as np
import polars as pl

from . import marks, words
from .axes import Span
from .panels import NOT_MEASURED, about_neurons, heads_and_tokens, mlps, panel_per_head
from .rows import table_rows
from .theme import GREY

TITLE = "How repair is spread over neurons"
COLUMNS = (
    *("model", "layer", "head", "mlp_layer", "rank_end", "n_neurons", "cumulative_share"),
    *("median_direct_effect", "n_tokens", "n_prompts"),
)
FIRST_NEURONS = 0.01


def draw(neuron_curve: pl.DataFrame) -> alt.FacetChart:
    """One model, resample ablation, a panel per chosen head (and MLP). Across: the share of neurons
    counted so far; up: their share of the summed absolute change. Points are groups of neurons,
    coloured by their median clean direct effect (logits): negative ones erase."""
    rows, missing = _rows(neuron_curve)
    effects = rows["median_direct_effect"]
    title = ["Median direct effect,", "clean (logits)"]
    colour, unseen = marks.signed_colour("median_direct_effect", title, effects)
    limits = (-0.02, 1.02)
    x = Span("neurons", "Neurons, most repairing first (%)", limits, percent=True)
    y = Span("cumulative_share", "Share of the absolute change (%)", limits, percent=True)
    tooltip = words.tips(rows, x, y, "median_direct_effect", rank_end="Neurons so far")
    curve = alt.Chart().encode(x=x.x(), y=y.y())
    groups = curve.transform_filter("datum.rank_end > 0").encode(color=colour, tooltip=tooltip)
    equal: marks.Look = {"positive": True, "color": GREY, "strokeDash": marks.DOTTED}
    layers = [
        marks.line_through_zero(1.0, x, y, **equal),
        marks.rule(x=FIRST_NEURONS, color="black", strokeDash=marks.DASHED),
        curve.mark_line(color=GREY, strokeWidth=1.2),
        groups.mark_point(filled=True, size=42, opacity=1, stroke=GREY, strokeWidth=0.6),
    ]
    # The line starts where no neuron is counted yet.
    names = ("neurons", "cumulative_share", "rank_end")
    start = rows.unique("panel", maintain_order=True).with_columns(pl.col(names) * 0)
    return words.titled(
        marks.facets(layers, pl.concat([start, rows]), size=(280, 280)),
        TITLE,
        about_neurons(rows, words.sample(rows)),
        "Neurons in order of repair, most repairing first; dotted: equal change of all neurons;"
        f" dashed: after the first {100 * FIRST_NEURONS:g} %",
        *unseen,
        *words.notes(rows, missing=missing),
    )


def caption(neuron_curve: pl.DataFrame) -> str:
    rows, _ = _rows(neuron_curve)
    return (
        f"For {heads_and_tokens(rows, words.sample(rows))}, the neurons of {mlps(rows)} are sorted on"
        " each token from the most repairing, whose direct effect on the logit rises most when the"
        " head is ablated, to the one whose effect falls most. The line is the share of the summed"
        " absolute change that the neurons so far account for, a mean over the tokens; it rises along"
        " the dotted line if all neurons change equally, and steeply at either end if few do, and the"
        " dashed rule stands after the first 1 % of the neurons. Colours give the median direct"
        " effect that the neurons of a group have before the ablation: the negative ones erase, they"
        " lower the logit."
    )


def _rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The rows in order, with `neurons`, the share of them so far; how many rows have no value."""
    about = ("E8", table, "neuron_curve")
    finite = ("cumulative_share", "rank_end", "n_neurons")
    rows, missing = table_rows(*about, columns=COLUMNS, finite=finite, empty=NOT_MEASURED)
    rows = rows.with_columns(neurons=pl.col("rank_end") / pl.col("n_neurons")).sort("rank_end")
    return panel_per_head(rows, _first_neurons), missing


def _first_neurons(panel: pl.DataFrame) -> list[str]:
    """The number of neurons, and what the first 1 % account for, if that is a neuron at all."""
    neurons = panel["n_neurons"][0]
    if neurons * FIRST_NEURONS < 1:
        return [f"{neurons:,} neurons"]
    # On a straight line between the points of the curve, and from 0 to its first.
    share = np.interp(FIRST_NEURONS, [0, *panel["neurons"]], [0, *panel["cumulative_share"]])
    return [
        f"{neurons:,} neurons; first {100 * FIRST_NEURONS:g} %: {100 * share:.0f} % of the change"
    ]
