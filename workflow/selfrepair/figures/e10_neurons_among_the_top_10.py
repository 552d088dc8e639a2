"""E10: in what share of instances each neuron is among the ten that repair most.

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
from .theme import BLUE, GREY

PANEL = ("layer", "head", "mlp_layer")
COLUMNS = ("model", *PANEL, "neuron", "instances", "prompts", "n_tokens", "n_prompts")
TOP = 10
TITLE = "How often the same neurons repair"
# A measured MLP that cannot react to the heads has no such neuron either.
NONE = f"{NOT_MEASURED[:-1]}; or no neuron reacts to the heads that were named."


def draw(neuron_counts: pl.DataFrame) -> alt.FacetChart:
    """One model, resample ablation, a panel per chosen head (and MLP); neurons from the most to the
    least frequent, on a log axis. Dotted: if the ten were always the same."""
    rows, missing = _rows(neuron_counts)
    last = max(int(rows["rank"].max()), TOP)  # type: ignore[arg-type]
    x = alt.X("rank:Q", title="Neuron, most frequent first (rank)")
    x = x.scale(type="log", domain=[0.9, 1.3 * last], nice=False)
    x = x.axis(values=[10**power for power in range(6) if 10**power <= last], format=",d")
    y_title = f"Instances with it in the top {TOP} (%)"
    y = Span("share", y_title, (0.0, 1.04), percent=True)
    tooltip = words.tips(rows, "neuron", "rank", "instances", "prompts", y)
    corners = [{"rank": 1, "share": 1}, {"rank": TOP, "share": 1}, {"rank": TOP, "share": 0}]
    dotted: marks.Look = {"color": GREY, "strokeDash": marks.DOTTED, "strokeWidth": 1.2}
    dots = alt.OverlayMarkDef(size=16, color=BLUE)
    line = alt.Chart().mark_line(color=BLUE, strokeWidth=1.6, point=dots)
    layers = [
        alt.Chart(pl.DataFrame(corners)).mark_line(**dotted).encode(x=x, y=y.y()),
        line.encode(x=x, y=y.y(), tooltip=tooltip),
    ]
    return words.titled(
        marks.facets(layers, _thinned(rows), size=(280, 200)),
        TITLE,
        about_neurons(rows, words.sample(rows)),
        f"Different neurons among the top {TOP} of at least one instance: {_different(rows):,};"
        f" dotted: if they were always the same {TOP}",
        *words.notes(rows, missing=missing),
    )


def caption(neuron_counts: pl.DataFrame) -> str:
    rows, _ = _rows(neuron_counts)
    return (
        f"For {heads_and_tokens(rows, words.sample(rows))}, the ten neurons of {mlps(rows)} that"
        f" repair most are noted on each token; {_different(rows):,} different neurons occur. The line"
        " gives the share of tokens in which a neuron is one of the ten, from the most frequent neuron"
        " (named) to the least, on a logarithmic axis. If the same ten always did the repair it would"
        " follow the dotted line, at 100 % up to rank 10 and zero beyond: the flatter and longer it"
        " is, the more the repairing neurons differ between prompts."
    )


def _rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The neurons, most frequent first, with `share` and `rank`; how many rows have no value."""
    about = ("E10", table, "neuron_counts")
    finite = ("instances", "n_tokens")
    rows, missing = table_rows(*about, columns=COLUMNS, finite=finite, empty=NONE)
    rows = rows.with_columns(share=pl.col("instances") / pl.col("n_tokens"))
    rows = rows.sort("share", "neuron", descending=[True, False])
    rows = rows.with_columns(rank=pl.int_range(1, pl.len() + 1).over(PANEL))
    return panel_per_head(rows, _most_frequent), missing


def _most_frequent(panel: pl.DataFrame) -> list[str]:
    first = panel.row(0, named=True)
    return [
        f"{panel.height:,} different neurons; most frequent: neuron {first['neuron']},",
        f"in {first['instances']:,} of {first['n_tokens']:,} instances, {first['prompts']:,} of"
        f" {first['n_prompts']:,} prompts",
    ]


def _different(rows: pl.DataFrame) -> int:
    return rows.select("mlp_layer", "neuron").n_unique()


def _thinned(rows: pl.DataFrame) -> pl.DataFrame:
    """Where there are too many neurons, the first and last of each share: the line is the same."""
    if not marks.crowded(rows, "panel"):
        return rows
    before, after = (pl.col("share").shift(step).over("panel") for step in (1, -1))
    return rows.filter(pl.col("share").ne_missing(before) | pl.col("share").ne_missing(after))
