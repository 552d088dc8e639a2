"""E10: in what share of instances each neuron is among the ten most repairing.

An instance is one top token of one head, ablated (resample). A panel per head and MLP; neurons from the
most to the least frequent, on a log axis. Dotted: if the ten were always the same.
"""

from __future__ import annotations

import altair as alt
import polars as pl

from .neuron_words import heads_on_top_tokens, mlps, opening
from .panels import in_panels, with_panels
from .plotting import (
    COLOURS,
    GREY,
    MOST_POINTS,
    axis_notes,
    axis_scale,
    counted_sample,
    finish,
    line_marks,
    percent_axis,
    plain_tip,
    table_rows,
)

COLUMNS = (
    *("model", "layer", "head", "mlp_layer", "neuron", "instances", "prompts"),
    *("n_tokens", "n_prompts"),
)
PANEL = ("layer", "head", "mlp_layer")
TOP = 10


def draw(neuron_counts: pl.DataFrame) -> alt.FacetChart:
    """The chart of one model.

    Raises:
        InputError: more than one model, a missing column, or no rows.
    """
    rows, missing = _rows(neuron_counts)
    last = max(int(rows["rank"].max()), TOP)  # type: ignore[arg-type]
    x = alt.X("rank:Q", title="Neuron, most frequent first (rank)")
    x = x.scale(type="log", domain=[0.9, 1.3 * last], nice=False)
    x = x.axis(values=[10**power for power in range(6) if 10**power <= last], format=",d")
    y = alt.Y("share:Q", title=f"Instances with it in the top {TOP} (%)")
    y = y.scale(axis_scale((0.0, 1.04))).axis(percent_axis())
    tooltip = [
        plain_tip("neuron", "Neuron", "d"),
        plain_tip("rank", "Rank"),
        plain_tip("instances", "Instances"),
        plain_tip("prompts", "Prompts"),
        plain_tip("share", "Share", ".1%"),
    ]
    always_the_same = [{"x": 1, "y": 1}, {"x": TOP, "y": 1}, {"x": TOP, "y": 0}]
    neurons = alt.Chart().mark_line(
        color=COLOURS[0], strokeWidth=1.6, point=alt.OverlayMarkDef(size=16)
    )
    layers = [
        line_marks(always_the_same, color=GREY, strokeDash=[2, 3]),
        neurons.encode(x=x, y=y, tooltip=tooltip),
    ]
    subtitle = [
        opening(rows, counted_sample(rows)),
        f"Different neurons among the top {TOP} of at least one instance: {_different(rows):,};"
        f" dotted: if they were always the same {TOP}",
        *axis_notes(outside=0, drawn=rows.height, missing=missing),
    ]
    chart = in_panels(_corners(rows), *layers, width=280, height=200)
    return finish(chart, "How often the same neurons repair", subtitle)


def caption(neuron_counts: pl.DataFrame) -> str:
    rows, _ = _rows(neuron_counts)
    return (
        f"For {heads_on_top_tokens(rows)}, the ten neurons of {mlps(rows)} that repair most are noted"
        f" on each token; {_different(rows):,} different neurons occur. The line gives the share of"
        " tokens in which a neuron is one of the ten, from the most frequent neuron (named) to the"
        " least, on a logarithmic axis. If the same ten always did the repair it would follow the"
        " dotted line, at 100 % up to rank 10 and zero beyond: the flatter and longer it is, the more"
        " the repairing neurons differ between prompts."
    )


def _rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    rows, missing = table_rows(
        "E10", table, "neuron_counts", columns=COLUMNS, finite=["instances", "n_tokens"]
    )
    rows = rows.with_columns(share=pl.col("instances") / pl.col("n_tokens"))
    rows = rows.sort("share", "neuron", descending=[True, False])
    rows = rows.with_columns(rank=pl.int_range(1, pl.len() + 1).over(PANEL))
    return with_panels(rows, _note), missing


def _note(panel: pl.DataFrame) -> list[str]:
    first = panel.row(0, named=True)
    return [
        f"{panel.height:,} different neurons; most frequent: neuron {first['neuron']},",
        f"in {first['instances']:,} of {first['n_tokens']:,} instances, {first['prompts']:,} of"
        f" {first['n_prompts']:,} prompts",
    ]


def _different(rows: pl.DataFrame) -> int:
    return rows.select("mlp_layer", "neuron").n_unique()


def _corners(rows: pl.DataFrame) -> pl.DataFrame:
    """Of too many neurons, the first and the last of each count: the same line."""
    if rows.group_by("panel").len()["len"].max() <= MOST_POINTS:  # type: ignore[operator]
        return rows
    before, after = (pl.col("share").shift(step).over("panel") for step in (1, -1))
    share = pl.col("share")
    return rows.filter(share.ne_missing(before) | share.ne_missing(after))
