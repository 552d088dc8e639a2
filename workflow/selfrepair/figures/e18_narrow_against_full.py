"""E18: self-repair of each head on a narrow task against its self-repair on the study's text."""

from __future__ import annotations

import altair as alt
import polars as pl

from ..tables.narrow import ALL_HEADS, JUDGED, TOKENS
from ..vocabulary import SECOND_HALF, TOP, bounded
from . import words
from .axes import Span, axis_limits, interval_limits, n_cut, placed
from .marks import layer_colour, line_through_zero, points, rule, whiskers
from .rows import check_columns, count_of, estimate, models_of, summary_rows, table_rows
from .unmeasured import is_unmeasured, unmeasured

TITLE = "Self-repair on a narrow task and on text"
COLUMNS = (
    *("model", "layer", "head"),
    *bounded("self_repair"),
    *bounded("full_self_repair"),
    *("direct_effect", "full_direct_effect", "takes_over", "full_takes_over"),
    *("n_tokens", "n_prompts"),
)
# Heads whose intervals are drawn: those of all would hide the points.
BARS = 12
NO_TASK = (
    "Not measured: the study leaves the narrow task out (experiments.narrow_prompts: 0), or this model's"
    " tokenizer cuts too few names and sentences so that every name is one token."
)
NO_TEXT = "Nothing to compare with: the study has no resample ablation of its text."
NOT_DONE = "The model does not do the task, so the claim is not judged."


def draw(narrow_heads: pl.DataFrame, summaries: pl.DataFrame) -> alt.LayerChart | alt.Chart:
    """One model, resample ablation, logits: a point per head, its self-repair on its top tokens of text across,
    on the task up, with the 95 % intervals of the BARS largest; dashed: the same on both.

    An empty table, of a study without the task or a tokenizer without names: words that say so.

    Raises:
        InputError: more than one model, a column is missing, or no estimates for the model.
    """
    if (reason := _reason(narrow_heads)) is not None:
        return unmeasured(TITLE, reason)
    rows, missing = _rows(narrow_heads)
    x_title = "Self-repair on text, the head's top tokens (logits)"
    x = Span("full_self_repair", x_title, axis_limits(rows["full_self_repair"]))
    y = Span(
        "self_repair", "Self-repair on the task (logits)", interval_limits(rows, "self_repair")
    )
    rows = placed(rows, x=x, y=y)
    colour = layer_colour(count_of(narrow_heads, "layer"))
    bars = whiskers(y).transform_filter("datum.barred")
    layers = [
        rule(y=0.0),
        rule(x=0.0),
        line_through_zero(1.0, x, y),
        bars.encode(x=x.x(), color=colour),
        points(rows).encode(x=x.x(), y=y.y(), color=colour, tooltip=_tooltip()),
    ]
    model = models_of(rows)[0]
    return words.titled(
        alt.LayerChart(layer=layers, data=rows).properties(width=460, height=380),
        TITLE,
        f"{model}, resample ablation; task: indirect object identification, {words.sample(rows)}",
        "Point: head, dashed: as much on the task as on text; bars: 95 % intervals of the"
        f" {min(BARS, rows.height)} largest",
        f"Rank correlation over heads: {_correlations(summaries, model)}",
        f"Answer above the other name in {_of_task(summaries, model)}",
        *[NOT_DONE] * (not _is_done(summaries, model)),
        *words.notes(rows, missing=missing, cut=n_cut(rows.filter("barred"), y), things="heads"),
    )


def caption(narrow_heads: pl.DataFrame, summaries: pl.DataFrame) -> str:
    if (reason := _reason(narrow_heads)) is not None:
        return reason
    rows, _ = _rows(narrow_heads)
    model = models_of(rows)[0]
    halves = summary_rows(
        "E18", summaries, model, experiment="E18", quantity="self_repair_split_half"
    )
    alike = words.estimated(estimate(halves, group=SECOND_HALF), unit="ratio")
    return (
        f"A point is an attention head of {model} ({rows.height:,} in all). Up: its mean self-repair on"
        f" {words.amount(rows['n_prompts'])} prompts of a narrow task, indirect object identification (two"
        " people are named, one of them again as the giver; the other is the answer), at the one position that"
        " predicts the answer. Its activations are replaced by those of the same sentence with three other"
        f" names. Across: its mean self-repair on the study's text, on {words.FROM_LARGEST}, under resample"
        f" ablation too. {words.REPAIR} If the heads that are repaired on the task were those that are repaired"
        " on text, points would rise to the right, near the dashed line if by as much. Rank correlation"
        f" (Spearman's): {_correlations(summaries, model)}; of the task's prompts with as many"
        f" others of it it would be {alike} ({SECOND_HALF}, from two halves). The answer's logit is above that of the other name"
        f" in {_of_task(summaries, model)}."
        f"{'' if _is_done(summaries, model) else f' {NOT_DONE}'}"
        f"{_backups(summaries, model)} Intervals are 95 % bootstrap intervals over the task's prompts."
    )


def _reason(table: pl.DataFrame) -> str | None:
    """Why there is nothing to draw, if there is nothing."""
    if is_unmeasured("E18", table, "narrow_heads", columns=COLUMNS):
        return NO_TASK
    return None if table["full_self_repair"].is_finite().any() else NO_TEXT


def _rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The heads, those with a bar marked, and how many have no value."""
    rows, missing = table_rows(
        "E18",
        table,
        "narrow_heads",
        columns=COLUMNS,
        finite=["self_repair", "full_self_repair"],
    )
    size = pl.col("self_repair").abs().rank("ordinal", descending=True)
    return rows.with_columns(barred=size <= BARS), missing


def _correlations(summaries: pl.DataFrame, model: str) -> str:
    found = summary_rows(
        "E18", summaries, model, experiment="E18", quantity="self_repair_correlation"
    )
    values = {
        group: words.estimated(estimate(found, group=f"{group}, {TOKENS[TOP]}"), unit="ratio")
        for group in (SECOND_HALF, ALL_HEADS)
    }
    return "; ".join(f"{group} {value}" for group, value in values.items())


def _of_task(summaries: pl.DataFrame, model: str) -> str:
    """How well the model does the task."""
    found = {
        quantity: summary_rows("E18", summaries, model, experiment="E18", quantity=quantity)
        for quantity in ("accuracy", "logit_difference")
    }
    share = words.estimated(estimate(found["accuracy"]))
    by = words.estimated(estimate(found["logit_difference"]), unit="logits")
    return f"{share} of the prompts; mean difference over all of them {by}"


def _is_done(summaries: pl.DataFrame, model: str) -> bool:
    check_columns("E18", summaries, "summaries", ["model", "group"])
    return not summaries.filter(model=model, group=JUDGED).is_empty()


def _backups(summaries: pl.DataFrame, model: str) -> str:
    """How many of the strongest backup heads are the same, if the study has a map."""
    found = summaries.filter(model=model, experiment="E18")
    common = estimate(found, quantity="backup_overlap")
    by_chance = estimate(
        found, quantity="backup_overlap_by_chance", group="heads of the same layers"
    )
    if common is None or by_chance is None:
        return ""
    return (
        f" Of the {common['group']} that take over most in all, {words.estimated(common)} are the same on both;"
        f" heads of the same layers drawn at random would have {words.estimated(by_chance)} in common."
    )


def _tooltip() -> list[alt.Tooltip]:
    return [
        *words.HEAD_TIP,
        *words.interval_tip("self_repair", "Self-repair on the task"),
        *words.interval_tip("full_self_repair", "Self-repair on text"),
        words.logits_tip("direct_effect", "Direct effect on the task"),
        words.logits_tip("full_direct_effect", "Direct effect on text"),
        words.logits_tip("takes_over", "Takes over, on the task"),
        words.logits_tip("full_takes_over", "Takes over, on text"),
    ]
