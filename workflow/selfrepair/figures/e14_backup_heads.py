"""E14: the strongest pairs of a head and a later head that makes up for it."""

from __future__ import annotations

import altair as alt
import polars as pl

from ..tables.terms import main_ablation
from ..vocabulary import SMALLEST_REPAIR
from . import marks, words
from .axes import fitted, placed
from .rows import NotMeasured, check_columns, table_rows
from .theme import BLUE

TITLE = "Heads and their backup heads"
PAIRS = 20
COLUMNS = (
    *("model", "ablation", "layer", "head", "n_backups", "n_backed_up", "rank"),
    *("backup_layer", "backup_head", "mean", "low", "high", "backs_up", "n_tokens", "n_prompts"),
)
NO_PAIRS = (
    "Not measured: this model has no head after another one, or none has a top token to ablate."
)


def draw(backup_heads: pl.DataFrame) -> alt.LayerChart:
    """One model and ablation, top tokens: the PAIRS largest mean changes of a later head's direct effect,
    in logits, largest first, with 95 % intervals; at most three of one ablated head."""
    rows, heads = _rows(backup_heads)
    x = fitted(rows, "mean", "Mean change of the later head's direct effect (logits)", ticks=7)
    rows = placed(rows, x=x)
    axis = alt.Axis(grid=False, ticks=False, domain=False, labelPadding=8)
    y = alt.Y("pair:N", title="Ablated head → later head", sort=rows["pair"].to_list(), axis=axis)
    tooltip = words.tips(
        rows,
        *("n_tokens", "n_prompts", x),
        pair="Ablated → later head",
        n_backups="Heads that back up the first",
        backed_up="Heads that the second backs up",
    )
    # A hollow point is a pair that is not told from none.
    fill = alt.condition("datum.backs_up", alt.value(BLUE), alt.value("white"))
    dots = alt.Chart().mark_point(size=52, opacity=1, stroke=BLUE, strokeWidth=1.4)
    bars = marks.whiskers(x, along="x", strokeWidth=1.4, color=BLUE, strokeOpacity=0.6)
    layers = [
        marks.rule(x=0.0),
        bars.encode(y=y),
        dots.encode(x=x.x(), y=y, fill=fill, tooltip=tooltip),
    ]
    hollow = rows.filter(~pl.col("backs_up")).height
    return words.titled(
        alt.LayerChart(layer=layers, data=rows, width=460, height=21 * rows.height),
        TITLE,
        f"{rows['model'][0]}, {rows['ablation'][0]} ablation, {words.FROM_TOP_TOKENS}:"
        f" {words.sample(rows)}",
        f"The {rows.height} largest of {_possible(heads):,} pairs, at most three of a head; bar:"
        " 95 % interval",
        *[f"Hollow: not told from no backup, {hollow} of {rows.height}"][:hollow],
        *words.notes(rows, x),
    )


def caption(backup_heads: pl.DataFrame) -> str:
    rows, heads = _rows(backup_heads)
    ablated = heads.filter(pl.col("n_tokens") > 0).height
    busy = heads.sort("n_backed_up", "layer", "head", descending=[True, False, False])
    most = busy.row(0, named=True)
    busiest = (
        f" L{most['layer']}H{most['head']} backs up most others, {most['n_backed_up']:,} heads, and"
        f" {heads.filter(pl.col('n_backups') > 0).height:,} of all {ablated:,} ablated heads have a backup."
    )
    return (
        f"Of {rows['model'][0]}, the {rows.height} pairs of heads in which the later head's direct effect"
        f" on the target token's logit rises most when the earlier one is ablated ({rows['ablation'][0]}"
        f" ablation), as the mean over tokens from the earlier head's top tokens"
        f" ({words.LARGEST}): {words.sample(rows)}. L12H3 is head 3 of layer 12, counted from 0; at most"
        " three pairs of each ablated head are shown. Bars are 95 % intervals over prompts of each pair for"
        f" itself; as these are the largest of {_possible(heads):,} pairs, chance has favoured them and"
        " a new sample would give somewhat less. A filled point is a backup head, its mean at least"
        f" {SMALLEST_REPAIR:g} logits and its interval above zero (as chance makes 1 in 40 of pairs that do nothing).{busiest * (most['n_backed_up'] > 0)}"
    )


def _possible(heads: pl.DataFrame) -> int:
    """How many pairs of a measured head and a later head there are."""
    measured = heads.filter(pl.col("n_tokens") > 0)["layer"]
    return sum((heads["layer"] > layer).sum() for layer in measured)


def _rows(table: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The largest pairs in order, with `pair`, its name, and how many others the later head backs up; and all
    heads, a row each."""
    check_columns("E14", table, "backup_heads", COLUMNS)
    if table.is_empty():
        raise NotMeasured(words.NOT_MAPPED)
    table = table.filter(ablation=main_ablation(table))
    if table["backup_layer"].count() == 0:
        raise NotMeasured(NO_PAIRS)
    rows, _ = table_rows("E14", table, "backup_heads", columns=COLUMNS, finite=["mean"])
    heads = table.filter(rank=1)
    names = {"backup_layer": "layer", "backup_head": "head", "backed_up": "n_backed_up"}
    rows = rows.join(heads.select(**names), on=["backup_layer", "backup_head"], how="left")
    name = pl.format("L{}H{} → L{}H{}", "layer", "head", "backup_layer", "backup_head")
    rows = rows.sort("mean", "layer", "head", "rank", descending=[True, False, False, False])
    rows = rows.head(PAIRS).rename({"low": "mean_low", "high": "mean_high"})
    return rows.with_columns(pair=name), heads
