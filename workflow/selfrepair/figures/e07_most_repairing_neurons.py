"""E7: in what share of instances the N-th most repairing neuron repairs at least so much.

An instance is one top token of one head; a neuron's repair is by how much its direct effect rises when
the head is ablated.
"""

from __future__ import annotations

import altair as alt
import polars as pl

from . import marks, words
from .axes import Span
from .panels import NOT_MEASURED, about_neurons, heads_and_tokens, mlps, panel_per_head
from .rows import table_rows

TITLE = "How much single neurons repair"
COLUMNS = (
    *("model", "layer", "head", "mlp_layer", "rank", "threshold", "share", "low", "high"),
    *("n_tokens", "n_prompts"),
)


def draw(neuron_ranks: pl.DataFrame) -> alt.FacetChart:
    """One model, resample ablation, a panel per chosen head (and MLP); a line per threshold, a share
    of the head's direct effect, in a band of its 95 % interval."""
    rows, missing = _rows(neuron_ranks)
    last = int(rows["rank"].max())  # type: ignore[arg-type]
    step = 5 if last > 5 else 1
    ticks = {"values": sorted({1, *range(step, last + 1, step)}), "format": "d", "grid": False}
    title = "Rank of the neuron, most repairing first"
    x = Span("rank", title, (0.5, last + 0.5), options=ticks).x()
    highest = max([*rows["share"], *rows["share_high"].drop_nulls()])
    limits = (0.0, min(1.02, 1.06 * highest or 1.0))
    y = Span("share", "Share of instances (%)", limits, percent=True)
    levels = rows["level"].unique(maintain_order=True).to_list()
    colour = alt.Color("level:O", title=["Repairs at", "least"], sort=levels)
    tooltip = words.tips(rows, "rank", y, level="Repairs at least")
    # The intervals, joined.
    band = marks.whiskers(y).mark_area(opacity=0.18)
    line = alt.Chart().mark_line(strokeWidth=1.8, point=alt.OverlayMarkDef(size=18))
    layers = [band, line.encode(y=y.y(), tooltip=tooltip)]
    return words.titled(
        marks.facets([layer.encode(x=x, color=colour) for layer in layers], rows, size=(280, 200)),
        TITLE,
        about_neurons(rows, words.sample(rows)),
        "Line: the neuron of this rank repairs at least so much of the head's direct effect;"
        " band: 95 % interval",
        *words.notes(rows, missing=missing),
    )


def caption(neuron_ranks: pl.DataFrame) -> str:
    rows, _ = _rows(neuron_ranks)
    return (
        f"For {heads_and_tokens(rows, words.sample(rows))}, the neurons of {mlps(rows)} are ranked on"
        " each token by how much their direct effect on the logit of the token to predict rises when"
        " the head is ablated (their repair). A line tells in what share of the tokens the neuron of"
        " rank N (across) repairs at least the given share of the head's direct effect; bands are"
        " 95 % bootstrap intervals over prompts. Lines that fall steeply mean that a few neurons carry"
        " most of what the MLP repairs."
    )


def _rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The rows, highest threshold first, with `level`, the threshold in words; how many have no value."""
    about = ("E7", table, "neuron_ranks")
    finite = ("share", "threshold")
    rows, missing = table_rows(*about, columns=COLUMNS, finite=finite, empty=NOT_MEASURED)
    level = [f"{100 * threshold:.3g} %" for threshold in rows["threshold"]]
    rows = rows.with_columns(level=pl.Series(level))
    rows = rows.rename({"low": "share_low", "high": "share_high"})
    return panel_per_head(rows.sort("threshold", "rank", descending=[True, False])), missing
