"""E16: what ablating a head and its backup together takes off the logit beyond both ablations."""

from __future__ import annotations

import altair as alt
import polars as pl

from ..tables.pairs import BACKUP, CONTROL
from ..vocabulary import bounded
from . import marks, words
from .axes import fitted, placed
from .rows import table_rows
from .theme import BLUE, ORANGE

TITLE = "Heads and their backups, ablated together"
COLUMNS = (
    *("model", "kind", "layer", "head", "second_layer", "second_head"),
    *bounded("second_change"),
    *bounded("excess"),
    *("delta_first", "delta_second", "delta_both", "n_tokens", "n_prompts"),
)
NAMES = {BACKUP: "Backup of the first head", CONTROL: "Control: another head of its layer"}
SHORT = {BACKUP: "backups", CONTROL: "controls"}
# A map in which no later head's change stands out has no pairs either.
NO_PAIRS = f"{words.NOT_MAPPED} Or none of this model's heads backs up another."


def draw(co_ablation: pl.DataFrame, summaries: pl.DataFrame) -> alt.LayerChart:
    """One model, resample ablation, logits: a point per pair, the change of the second head's direct effect
    when the first is ablated across, the excess of ablating both up, with 95 % intervals."""
    rows, missing = _rows(co_ablation)
    x = fitted(rows, "second_change", "Change of the second head's direct effect (logits)")
    y = fitted(rows, "excess", "Excess of ablating both (logits)")
    rows = placed(rows, x=x, y=y)
    inks = {NAMES[BACKUP]: BLUE, NAMES[CONTROL]: ORANGE}
    colour = marks.inks("kind_name", "Second head", inks)
    tooltip = words.tips(
        rows,
        *("pair", "kind_name", "n_tokens", "n_prompts", x, y),
        delta_first="Change, first ablated (logits)",
        delta_second="Change, second ablated (logits)",
        delta_both="Change, both ablated (logits)",
    )
    layers = [
        marks.rule(y=0.0),
        marks.rule(x=0.0),
        marks.line_through_zero(-1.0, x, y),
        marks.whiskers(x, along="x").encode(y=y.y(), color=colour),
        *marks.estimates(rows, y, x=x.x(), color=colour, tooltip=tooltip),
    ]
    excess = [
        f"{name} {words.told('E16', summaries, rows, 'excess', group=kind, unit='logits')}"
        for kind, name in SHORT.items()
        if kind in set(rows["kind"])
    ]
    return words.titled(
        alt.LayerChart(layer=layers, data=rows, width=460, height=380),
        TITLE,
        f"{rows['model'][0]}, resample ablation, tokens from the first head's top 2 %:"
        f" {words.sample(rows, unit='pair')}",
        "Point: pair of heads, bars: 95 % intervals; dashed: all that the second head made up for is gone",
        f"Mean excess: {'; '.join(excess)}",
        *words.notes(rows, x, y, missing=missing, things="pairs"),
    )


def caption(co_ablation: pl.DataFrame, summaries: pl.DataFrame) -> str:
    rows, _ = _rows(co_ablation)
    lost = words.told("E16", summaries, rows, "share_lost", group=BACKUP)
    return (
        f"Pairs of heads of {rows['model'][0]}, {words.sample(rows, unit='pair')}, on"
        f" {words.FROM_TOP_TOKENS} (those with the first head's largest direct effect), in prompts at the"
        " end of the sample. A backup is a later head whose direct effect on the target token's logit rises"
        " most when the first head is ablated, by the repair map; its control is another head of the same"
        " layer, drawn at random, ablated beside the same first head. Up: the change of the logit when both"
        " are ablated, less the changes when each is ablated alone (resample ablation). Across: by how much"
        " the second head's direct effect rises when the first is ablated. Below zero, losing both costs"
        " more than the two losses: the backup had made up for the first head. On the dashed line just what"
        " the second head's direct effect had gained is lost. Over all backup pairs the excess is"
        f" {lost} of it. Bars are 95 % intervals over prompts."
    )


def _rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The pairs with their names, and how many have no value."""
    about, finite = ("E16", table, "co_ablation"), ["second_change", "excess"]
    rows, missing = table_rows(*about, columns=COLUMNS, finite=finite, empty=NO_PAIRS)
    name = pl.format("L{}H{} and L{}H{}", "layer", "head", "second_layer", "second_head")
    return rows.with_columns(pair=name, kind_name=pl.col("kind").replace_strict(NAMES)), missing
