"""E18: self-repair of each head on a narrow task against its self-repair on the study's text."""

from __future__ import annotations

import altair as alt
import polars as pl

from ..tables.narrow import ALL_HEADS, JUDGED, TOKENS
from ..vocabulary import SECOND_HALF, TOP, bounded
from . import marks, words
from .axes import fitted, n_cut, placed
from .rows import NotMeasured, check_columns, count_of, estimate, table_rows

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


def draw(narrow_heads: pl.DataFrame, summaries: pl.DataFrame) -> alt.LayerChart:
    """One model, resample ablation, logits: a point per head, its self-repair on its top tokens of text across,
    on the task up, with the 95 % intervals of the BARS largest; dashed: the same on both."""
    rows, missing = _rows(narrow_heads)
    on_text = "Self-repair on text, the head's top tokens (logits)"
    x = fitted(rows, "full_self_repair", on_text, bars=False)
    y = fitted(rows, "self_repair", "Self-repair on the task (logits)")
    rows = placed(rows, x=x, y=y)
    place: marks.Look = {"x": x.x(), "color": marks.layer_colour(count_of(narrow_heads, "layer"))}
    tooltip = words.tips(
        rows,
        *(*words.HEAD, x, y),
        direct_effect="Direct effect on the task (logits)",
        full_direct_effect="Direct effect on text (logits)",
        takes_over="Takes over, on the task (logits)",
        full_takes_over="Takes over, on text (logits)",
    )
    layers = [
        marks.rule(y=0.0),
        marks.rule(x=0.0),
        marks.line_through_zero(1.0, x, y),
        marks.whiskers(y).transform_filter("datum.barred").encode(**place),
        marks.points(rows).encode(y=y.y(), tooltip=tooltip, **place),
    ]
    return words.titled(
        alt.LayerChart(layer=layers, data=rows, width=460, height=380),
        TITLE,
        f"{rows['model'][0]}, resample ablation; task: indirect object identification, {words.sample(rows)}",
        "Point: head, dashed: as much on the task as on text; bars: 95 % intervals of the"
        f" {min(BARS, rows.height)} largest",
        f"Rank correlation over heads: {_correlations(summaries, rows)}",
        f"Answer above the other name in {_of_task(summaries, rows)}",
        *[NOT_DONE] * (not _is_done(summaries, rows)),
        *words.notes(rows, missing=missing, cut=n_cut(rows.filter("barred"), y), things="heads"),
    )


def caption(narrow_heads: pl.DataFrame, summaries: pl.DataFrame) -> str:
    rows, _ = _rows(narrow_heads)
    halves = "self_repair_split_half"
    alike = words.told("E18", summaries, rows, halves, group=SECOND_HALF, unit="ratio")
    done = "" if _is_done(summaries, rows) else f" {NOT_DONE}"
    return (
        f"A point is an attention head of {rows['model'][0]} ({rows.height:,} in all). Up: its mean self-repair on"
        f" {words.amount(rows['n_prompts'])} prompts of a narrow task, indirect object identification (two"
        " people are named, one of them again as the giver; the other is the answer), at the one position that"
        " predicts the answer. Its activations are replaced by those of the same sentence with three other"
        f" names. Across: its mean self-repair on the study's text, on {words.FROM_LARGEST}, under resample"
        f" ablation too. {words.REPAIR} If the heads that are repaired on the task were those that are repaired"
        " on text, points would rise to the right, near the dashed line if by as much. Rank correlation"
        f" (Spearman's): {_correlations(summaries, rows)}; of the task's prompts with as many"
        f" others of it it would be {alike} ({SECOND_HALF}, from two halves). The answer's logit is above that of the other name"
        f" in {_of_task(summaries, rows)}."
        f"{done}{_backups(summaries, rows)} Intervals are 95 % bootstrap intervals over the task's prompts."
    )


def _rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The heads, those with a bar marked, and how many have no value."""
    check_columns("E18", table, "narrow_heads", COLUMNS)
    if not table["full_self_repair"].is_finite().any():
        raise NotMeasured(NO_TASK if table.is_empty() else NO_TEXT)
    finite = ["self_repair", "full_self_repair"]
    rows, missing = table_rows("E18", table, "narrow_heads", columns=COLUMNS, finite=finite)
    size = pl.col("self_repair").abs().rank("ordinal", descending=True)
    return rows.with_columns(barred=size <= BARS), missing


def _correlations(summaries: pl.DataFrame, rows: pl.DataFrame) -> str:
    about = ("E18", summaries, rows, "self_repair_correlation")
    return "; ".join(
        f"{group} {words.told(*about, group=f'{group}, {TOKENS[TOP]}', unit='ratio')}"
        for group in (SECOND_HALF, ALL_HEADS)
    )


def _of_task(summaries: pl.DataFrame, rows: pl.DataFrame) -> str:
    """How well the model does the task."""
    share = words.told("E18", summaries, rows, "accuracy")
    by = words.told("E18", summaries, rows, "logit_difference", unit="logits")
    return f"{share} of the prompts; mean difference over all of them {by}"


def _is_done(summaries: pl.DataFrame, rows: pl.DataFrame) -> bool:
    return JUDGED in summaries.filter(model=rows["model"][0])["group"]


def _backups(summaries: pl.DataFrame, rows: pl.DataFrame) -> str:
    """How many of the strongest backup heads are the same, if the study has a map."""
    found = summaries.filter(model=rows["model"][0], experiment="E18")
    by_chance = {"quantity": "backup_overlap_by_chance", "group": "heads of the same layers"}
    common, chance = estimate(found, quantity="backup_overlap"), estimate(found, **by_chance)
    if common is None or chance is None:
        return ""
    return (
        f" Of the {common['group']} that take over most in all, {words.estimated(common)} are the same on both;"
        f" heads of the same layers drawn at random would have {words.estimated(chance)} in common."
    )
