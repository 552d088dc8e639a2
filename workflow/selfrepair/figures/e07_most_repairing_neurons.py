"""E7: in what share of instances the N-th most repairing neuron repairs at least so much.

An instance is one top token of one head; a neuron's repair is by how much its direct effect rises when
the head is ablated (resample). A panel per head and MLP; a line per threshold, a share of the head's
direct effect, in a band of its 95 % interval.
"""

from __future__ import annotations

from functools import partial

import altair as alt
import polars as pl

from .neuron_words import heads_on_top_tokens, mlps, opening
from .panels import in_panels, with_panels
from .plotting import (
    axis_notes,
    axis_scale,
    counted_sample,
    finish,
    percent_axis,
    plain_tip,
    table_rows,
)

COLUMNS = (
    *("model", "layer", "head", "mlp_layer", "rank", "threshold", "share", "low", "high"),
    *("n_tokens", "n_prompts"),
)


def draw(neuron_ranks: pl.DataFrame) -> alt.FacetChart:
    """The chart of one model.

    Raises:
        InputError: more than one model, a missing column, or no rows.
    """
    rows, missing = _rows(neuron_ranks)
    last = int(rows["rank"].max())  # type: ignore[arg-type]
    levels = rows.sort("threshold", descending=True)["level"].unique(maintain_order=True).to_list()
    highest = max(rows["share"].max(), rows["high"].max() or 0)  # type: ignore[type-var]
    x = alt.X("rank:Q", title="Rank of the neuron, most repairing first")
    ticks = sorted({1, *range(5 if last > 5 else 1, last + 1, 5 if last > 5 else 1)})
    x = x.scale(axis_scale((0.5, last + 0.5))).axis(values=ticks, format="d", grid=False)
    y = partial(
        alt.Y,
        title="Share of instances (%)",
        scale=axis_scale((0.0, min(1.02, 1.06 * highest or 1.0))),
        axis=percent_axis(),
    )
    colour = alt.Color("level:O", title=["Repairs at", "least"])
    colour = colour.scale(domain=levels, scheme=alt.SchemeParams("viridis", extent=[0, 0.85]))
    colour = colour.legend(symbolType="circle", symbolSize=70, symbolOpacity=1)
    tooltip = [
        plain_tip("rank", "Rank", "d"),
        alt.Tooltip("level:N", title="Repairs at least"),
        plain_tip("share", "Share", ".1%"),
        plain_tip("low", "95 % low", ".1%"),
        plain_tip("high", "95 % high", ".1%"),
    ]
    base = alt.Chart().encode(x=x, color=colour)
    band = base.mark_area(opacity=0.18).encode(y=y("low:Q"), y2="high:Q")
    line = base.mark_line(strokeWidth=1.8, point=alt.OverlayMarkDef(size=18))
    line = line.encode(y=y("share:Q"), tooltip=tooltip)
    subtitle = [
        opening(rows, counted_sample(rows)),
        "Line: the neuron of this rank repairs at least so much of the head's direct effect;"
        " band: 95 % interval",
        *axis_notes(outside=0, drawn=rows.height, missing=missing),
    ]
    chart = in_panels(rows, band, line, width=280, height=200)
    return finish(chart, "How much single neurons repair", subtitle)


def caption(neuron_ranks: pl.DataFrame) -> str:
    rows, _ = _rows(neuron_ranks)
    return (
        f"For {heads_on_top_tokens(rows)}, the neurons of {mlps(rows)} are ranked on each token by"
        " how much their direct effect on the logit of the token to predict rises when the head is"
        " ablated (their repair). A line tells in what share of the tokens the neuron of rank N"
        " (across) repairs at least the given share of the head's direct effect; bands are 95 %"
        " bootstrap intervals over prompts. Lines that fall steeply mean that a few neurons carry"
        " most of what the MLP repairs."
    )


def _rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    rows, missing = table_rows(
        "E7", table, "neuron_ranks", columns=COLUMNS, finite=["share", "threshold"]
    )
    level = [f"{100 * threshold:.3g} %" for threshold in rows["threshold"]]
    rows = rows.with_columns(level=pl.Series(level)).sort("threshold", "rank")
    return with_panels(rows), missing
