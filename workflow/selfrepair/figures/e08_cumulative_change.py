"""E8: how the change of the neurons' direct effects is spread, most repairing neuron first.

A neuron's repair is by how much its direct effect rises when the head is ablated (resample). A panel per
head and MLP. Across: the share of neurons counted so far; up: their share of the summed absolute
change. Points are groups of neurons, coloured by their median clean direct effect: negative ones erase.
"""

from __future__ import annotations

import altair as alt
import numpy as np
import polars as pl

from .neuron_words import heads_on_top_tokens, mlps, opening
from .panels import in_panels, with_panels
from .plotting import (
    GREY,
    across_rule,
    axis_notes,
    axis_scale,
    counted_sample,
    diverging_colour,
    finish,
    line_marks,
    logits_tip,
    percent_axis,
    plain_tip,
    table_rows,
)

COLUMNS = (
    *("model", "layer", "head", "mlp_layer", "rank_end", "n_neurons", "cumulative_share"),
    *("median_direct_effect", "n_tokens", "n_prompts"),
)
FIRST_NEURONS = 0.01


def draw(neuron_curve: pl.DataFrame) -> alt.FacetChart:
    """The chart of one model.

    Raises:
        InputError: more than one model, a missing column, or no rows.
    """
    rows, missing = _rows(neuron_curve)
    colour, colour_notes = diverging_colour(
        rows, "median_direct_effect", ["Median direct effect,", "clean (logits)"]
    )
    scale, axis = axis_scale((-0.02, 1.02)), percent_axis()
    x = alt.X("neurons:Q", title="Neurons, most repairing first (%)", scale=scale, axis=axis)
    y = alt.Y(
        "cumulative_share:Q", scale=scale, axis=axis, title="Share of the absolute change (%)"
    )
    tooltip = [
        plain_tip("rank_end", "Neurons so far"),
        plain_tip("neurons", "Of all", ".2%"),
        plain_tip("cumulative_share", "Share of the change", ".1%"),
        logits_tip("median_direct_effect"),
    ]
    curve = alt.Chart().encode(x=x, y=y)
    points = curve.transform_filter("datum.rank_end > 0").mark_point(
        filled=True, size=42, opacity=1, stroke=GREY, strokeWidth=0.6
    )
    layers = [
        line_marks([{"x": 0, "y": 0}, {"x": 1, "y": 1}], color=GREY, strokeDash=[2, 3]),
        across_rule(FIRST_NEURONS, color="black", strokeDash=[5, 3]),
        curve.mark_line(color=GREY, strokeWidth=1.2),
        points.encode(color=colour, tooltip=tooltip),
    ]
    subtitle = [
        opening(rows, counted_sample(rows)),
        "Neurons in order of repair, most repairing first; dotted: equal change of all neurons;"
        f" dashed: the first {FIRST_NEURONS:.0%}",
        *colour_notes,
        *axis_notes(outside=0, drawn=rows.height, missing=missing),
    ]
    # The line starts where no neuron is counted yet.
    start = (
        rows.group_by("panel", maintain_order=True)
        .first()
        .with_columns(
            neurons=pl.lit(0.0), cumulative_share=pl.lit(0.0), rank_end=pl.lit(0, pl.Int32)
        )
    )
    curves = pl.concat([start.select(rows.columns), rows], how="vertical_relaxed")
    chart = in_panels(curves, *layers, width=280, height=280)
    return finish(chart, "How repair is spread over neurons", subtitle)


def caption(neuron_curve: pl.DataFrame) -> str:
    rows, _ = _rows(neuron_curve)
    return (
        f"For {heads_on_top_tokens(rows)}, the neurons of {mlps(rows)} are sorted on each token from"
        " the most repairing, whose direct effect on the logit rises most when the head is ablated,"
        " to the one whose effect falls most. The line is the share of the summed absolute change"
        " that the neurons so far account for, a mean over the tokens; it rises along the dotted"
        " line if all neurons change equally, and steeply at either end if few do, and the dashed"
        " rule stands after the first 1 % of the neurons. Colours give the median direct effect"
        " that the neurons of a group have before the ablation: the negative ones erase, they"
        " lower the logit."
    )


def _rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    finite = ["cumulative_share", "rank_end", "n_neurons"]
    rows, missing = table_rows("E8", table, "neuron_curve", columns=COLUMNS, finite=finite)
    rows = rows.with_columns(neurons=pl.col("rank_end") / pl.col("n_neurons")).sort("rank_end")
    return with_panels(rows, _note), missing


def _note(panel: pl.DataFrame) -> list[str]:
    """The number of neurons, and the share of the first 1 % where that is a neuron at all."""
    neurons = panel["n_neurons"][0]
    if neurons * FIRST_NEURONS < 1:
        return [f"{neurons:,} neurons"]
    # On a straight line between the curve's points and 0.
    across, up = [0.0, *panel["neurons"]], [0.0, *panel["cumulative_share"]]
    share = np.interp(FIRST_NEURONS, across, up)
    return [f"{neurons:,} neurons; first {FIRST_NEURONS:.0%}: {share:.0%} of the change"]
