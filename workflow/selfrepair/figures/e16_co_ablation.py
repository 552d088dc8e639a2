"""E16: what ablating a head and its backup together takes off the logit beyond both ablations."""

from __future__ import annotations

import altair as alt
import polars as pl

from ..tables.pairs import BACKUP, CONTROL, KINDS
from ..vocabulary import bounded
from . import words
from .axes import Span, interval_limits, n_cut, placed
from .marks import line_through_zero, points, rule, whiskers
from .rows import estimate, models_of, summary_rows, table_rows
from .theme import BLUE, ORANGE
from .unmeasured import NOT_MAPPED, is_unmeasured, unmeasured

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
NO_PAIRS = f"{NOT_MAPPED} Or none of this model's heads backs up another."


def draw(co_ablation: pl.DataFrame, summaries: pl.DataFrame) -> alt.LayerChart | alt.Chart:
    """One model, resample ablation, logits: a point per pair, the change of the second head's direct effect
    when the first is ablated across, the excess of ablating both up, with 95 % intervals.

    An empty table, of a study without a repair map or a model without backups: words that say so.

    Raises:
        InputError: more than one model, a column is missing, or no estimates for the model.
    """
    if is_unmeasured("E16", co_ablation, "co_ablation", columns=COLUMNS):
        return unmeasured(TITLE, NO_PAIRS)
    rows, missing = _rows(co_ablation)
    x_title = "Change of the second head's direct effect (logits)"
    x = Span("second_change", x_title, interval_limits(rows, "second_change"))
    y = Span("excess", "Excess of ablating both (logits)", interval_limits(rows, "excess"))
    rows = placed(rows, x=x, y=y)
    scale = alt.Scale(domain=[NAMES[kind] for kind in KINDS], range=[BLUE, ORANGE])
    colour = alt.Color("kind_name:N", title="Second head", scale=scale)
    _, low, high = bounded("second_change")
    across = alt.Chart().transform_filter(f"isValid(datum.{low}) && isValid(datum.{high})")
    across = across.mark_rule(strokeWidth=1, strokeOpacity=0.4)
    layers = [
        rule(y=0.0),
        rule(x=0.0),
        line_through_zero(-1.0, x, y),
        whiskers(y).encode(x=x.x(), color=colour),
        across.encode(x=x.x(low), x2=f"{high}:Q", y=y.y(), color=colour),
        points(rows).encode(x=x.x(), y=y.y(), color=colour, tooltip=_tooltip()),
    ]
    model = models_of(rows)[0]
    excess = summary_rows("E16", summaries, model, experiment="E16", quantity="excess")
    estimates = [
        f"{name} {words.estimated(estimate(excess, group=kind), unit='logits')}"
        for kind, name in SHORT.items()
        if kind in set(rows["kind"])
    ]
    return words.titled(
        alt.LayerChart(layer=layers, data=rows).properties(width=460, height=380),
        TITLE,
        f"{model}, resample ablation, tokens from the first head's top 2 %:"
        f" {words.sample(rows, unit='pair')}",
        "Point: pair of heads, bars: 95 % intervals; dashed: all that the second head made up for is gone",
        f"Mean excess: {'; '.join(estimates)}",
        *words.notes(
            rows,
            missing=missing,
            cut=n_cut(rows, x) + n_cut(rows, y),
            things="pairs",
        ),
    )


def caption(co_ablation: pl.DataFrame, summaries: pl.DataFrame) -> str:
    if is_unmeasured("E16", co_ablation, "co_ablation", columns=COLUMNS):
        return NO_PAIRS
    rows, _ = _rows(co_ablation)
    lost = summary_rows(
        "E16", summaries, models_of(rows)[0], experiment="E16", quantity="share_lost"
    )
    return (
        f"Pairs of heads of {models_of(rows)[0]}, {words.sample(rows, unit='pair')}, on"
        f" {words.FROM_TOP_TOKENS} (those with the first head's largest direct effect), in prompts at the"
        " end of the sample. A backup is a later head whose direct effect on the target token's logit rises"
        " most when the first head is ablated, by the repair map; its control is another head of the same"
        " layer, drawn at random, ablated beside the same first head. Up: the change of the logit when both"
        " are ablated, less the changes when each is ablated alone (resample ablation). Across: by how much"
        " the second head's direct effect rises when the first is ablated. Below zero, losing both costs"
        " more than the two losses: the backup had made up for the first head. On the dashed line just what"
        " the second head's direct effect had gained is lost. Over all backup pairs the excess is"
        f" {words.estimated(estimate(lost, group=BACKUP))} of it. Bars are 95 % intervals over prompts."
    )


def _rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The pairs with their names, and how many have no value."""
    rows, missing = table_rows(
        "E16", table, "co_ablation", columns=COLUMNS, finite=["second_change", "excess"]
    )
    name = pl.format("L{}H{} and L{}H{}", "layer", "head", "second_layer", "second_head")
    return rows.with_columns(pair=name, kind_name=pl.col("kind").replace_strict(NAMES)), missing


def _tooltip() -> list[alt.Tooltip]:
    return [
        words.name_tip("pair", "Pair"),
        words.name_tip("kind_name", "Second head"),
        *words.interval_tip("excess", "Excess"),
        *words.interval_tip("second_change", "Change of the second's direct effect"),
        words.logits_tip("delta_first", "Change, first ablated"),
        words.logits_tip("delta_second", "Change, second ablated"),
        words.logits_tip("delta_both", "Change, both ablated"),
        words.count_tip("n_tokens", "Tokens"),
        words.count_tip("n_prompts", "Prompts"),
    ]
