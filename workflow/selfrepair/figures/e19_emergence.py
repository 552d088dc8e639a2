"""E19: self-repair, its parts and the loss of a model's checkpoints, against the tokens that they were trained on."""

from __future__ import annotations

from dataclasses import replace

import altair as alt
import polars as pl

from ..tables.terms import terms_of
from ..vocabulary import SECOND_HALF, bounded
from . import marks, words
from .axes import Span, fitted, n_cut, placed, share_axis
from .rows import DEPTH_KEYS, check_columns, depth_rows, models_of, stacked, table_rows
from .theme import BLACK, SILVER
from .unmeasured import unmeasured

TITLE = "Self-repair over training"
UNKNOWN = (
    "Not measured: fewer than two models of this study state on how many tokens they were trained"
    " (training_tokens of a model in the config)."
)
SHARE, LOSS, TOKENS = "restored_share", "mean_surprisal", "training_tokens"
TRAINING = ("model", TOKENS, LOSS, "n_tokens")
ZERO = ", 0 left of the dashed line"


def draw(depth: pl.DataFrame, training: pl.DataFrame) -> alt.VConcatChart | alt.Chart:
    """Resample ablation, top tokens, heads of the second half: a point per checkpoint and part, with its 95 %
    interval over prompts. Below it the restored share, and the loss.

    Tokens are on a log scale; a checkpoint before training stands left of it, behind a dashed line. Models
    that do not state their training tokens are not drawn. If fewer than two do: words that say so.
    """
    if _is_unknown(depth, training):
        return unmeasured(TITLE, UNKNOWN)
    parts, shares, losses, missing = _rows(depth, training)
    axes = (
        fitted(parts, "value", "Mean over heads (logits)"),
        # Before a model has learnt anything, the share is of hardly any effect.
        share_axis(shares, SHARE, "Restored share", keep=0.8, ticks=5),
        fitted(losses, LOSS, "Loss (nats)", bars=False, include=()),
    )
    rows = [placed(each, y=y) for each, y in zip((parts, shares, losses), axes, strict=True)]
    inks = marks.inks("part", "From", marks.part_inks(parts))
    x, *left = across(training[TOKENS].drop_nulls())
    without = replace(x, title=None, options=x.options | {"labels": False})
    panels = [
        _panel(rows[0], without, axes[0], *left, color=inks).properties(height=260),
        _panel(rows[1], without, axes[1], *left),
        _panel(rows[2], x, axes[2], *left, bars=False),
    ]
    left_out = models_of(training.filter(pl.col(TOKENS).is_null()))
    return words.titled(
        alt.vconcat(*panels, spacing=14),
        TITLE,
        f"Resample ablation, {words.FROM_TOP_TOKENS}, heads of the second half of the layers",
        "Bars: 95 % intervals over prompts; parts of a checkpoint stand side by side",
        *["Left of the dashed line: before training, at 0 tokens"] * (0 in training[TOKENS]),
        *[f"Without a number of training tokens, not drawn: {', '.join(left_out)}"] * any(left_out),
        *words.notes(
            pl.concat([each.select("edge") for each in rows]),
            missing=missing,
            cut=n_cut(rows[0], axes[0]) + n_cut(rows[1], axes[1]),
        ),
    )


def caption(depth: pl.DataFrame, training: pl.DataFrame) -> str:
    if _is_unknown(depth, training):
        return UNKNOWN
    parts, _, losses, _ = _rows(depth, training)
    return (
        f"What makes up for ablated attention heads in checkpoints of a model, {words.listed(models_of(losses))},"
        f" against the tokens that each was trained on (log scale{ZERO * (0 in losses[TOKENS])}); resample"
        f" ablation, on {words.FROM_LARGEST}: {words.sample(parts, unit='model')}. {words.REPAIR} Top: self-repair"
        " and the parts that add up to it, in logits, means over the heads of the second half of the layers;"
        " middle: the share of the removed direct effect that self-repair restores, a ratio of such means, which"
        " says little where heads have hardly any effect yet. Bottom: the loss, the mean surprisal of the"
        f" {words.amount(losses['n_tokens'])} targets of the sample, which has no interval; bars are 95 %"
        " bootstrap intervals over prompts."
    )


def across(tokens: pl.Series) -> tuple[Span, float, float]:
    """The axis of numbers of tokens, at their logarithms to base 10; left of all others, where 0 stands, and
    the border before it."""
    logs = tokens.filter(tokens > 0).log10().to_list() or [0.0]
    gap = 0.1 * (max(logs) - min(logs)) or 1.0
    zero, border = min(logs) - gap, min(logs) - gap / 2
    places = [zero] * (0 in tokens) + sorted(logs)
    margin = 0.04 * (places[-1] - places[0]) or 0.5
    # Ticks at the checkpoints. Numbers need not be equal to the last digit.
    label = (
        f"datum.value < {border} ? '0' : replace(format(pow(10, datum.value), '.2~s'), 'G', 'B')"
    )
    options: marks.Look = {
        "values": places,
        "labelExpr": label,
        "labelOverlap": "greedy",
        "grid": False,
    }
    limits = places[0] - margin, places[-1] + margin
    return Span("place", "Training tokens", limits, options=options), zero, border


def _panel(
    rows: pl.DataFrame,
    x: Span,
    y: Span,
    zero: float,
    border: float,
    *,
    bars: bool = True,
    color: alt.Color | None = None,
) -> alt.LayerChart:
    """The checkpoints, joined if they were trained; parts of one stand side by side about its place."""
    place = pl.when(pl.col(TOKENS) > 0).then(pl.col(TOKENS).log10()).otherwise(zero)
    if color:
        names = list(marks.part_inks(rows))
        step = 0.008 * (x.limits[1] - x.limits[0])
        beside = [step * (number - (len(names) - 1) / 2) for number in range(len(names))]
        place += pl.col("part").replace_strict(names, beside, return_dtype=pl.Float64)
    layers = marks.joined(
        rows,
        y,
        bars=bars,
        where=f"datum.{TOKENS} > 0",
        x=x.x(),
        color=color or alt.value(BLACK),
        tooltip=words.tips(
            rows,
            "model",
            TOKENS,
            *(["part", "n_heads"] if color else []),
            **{y.column: str(y.title)},
        ),
    )
    if 0 in rows[TOKENS]:
        layers.append(marks.rule(x=border, color=SILVER, strokeDash=marks.DASHED))
    layers = [*[marks.rule(y=0.0)] * bars, *layers]
    return alt.LayerChart(layer=layers, data=rows.with_columns(place=place), width=560, height=130)


def _is_unknown(depth: pl.DataFrame, training: pl.DataFrame) -> bool:
    """Whether fewer than two models state their training tokens. Raises InputError if a column is missing."""
    check_columns("E19", training, "training", TRAINING)
    drawn = [column for name in (*marks.PARTS, SHARE) for column in bounded(name)]
    check_columns("E19", depth, "depth", [*DEPTH_KEYS, *drawn])
    return training[TOKENS].count() < 2


def _rows(
    depth: pl.DataFrame, training: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, int]:
    """Parts, shares and losses of the checkpoints, from the one trained least; how many have no value."""
    known = training.drop_nulls(TOKENS).sort(TOKENS, maintain_order=True)
    table = known.select("model", TOKENS).join(depth, on="model", maintain_order="left_right")
    names = {name: part for name, (part, _) in marks.PARTS.items()}
    parts = stacked(table, ["self_repair", *terms_of(table)], *DEPTH_KEYS, TOKENS)
    parts = parts.with_columns(part=pl.col("quantity").replace_strict(names))
    of_parts, *missing = depth_rows("E19", parts, "value", TOKENS, "part", depths=[SECOND_HALF])
    of_shares, no_share = depth_rows("E19", table, SHARE, TOKENS, depths=[SECOND_HALF])
    of_losses, no_loss = table_rows(
        "E19", known, "training", columns=TRAINING, finite=[LOSS], one_model=False
    )
    return of_parts, of_shares, of_losses, sum(missing) + no_share + no_loss
