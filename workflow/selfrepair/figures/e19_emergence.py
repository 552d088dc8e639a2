"""E19: self-repair, its parts and the loss of a model's checkpoints, against the tokens that they were trained on."""

from __future__ import annotations

import altair as alt
import polars as pl

from ..vocabulary import SECOND_HALF, TERMS
from . import marks, words
from .axes import Span, fitted, placed, share_axis
from .rows import NotMeasured, check_columns, depth_rows, models_of, part_rows, table_rows
from .theme import BLACK, SILVER

TITLE = "Self-repair over training"
UNKNOWN = (
    "Not measured: fewer than two models of this study state on how many tokens they were trained"
    " (training_tokens of a model in the config)."
)
SHARE, LOSS, TOKENS = "restored_share", "mean_surprisal", "training_tokens"
TRAINING = ("model", TOKENS, LOSS, "n_tokens")
# Self-repair first, then the parts that add up to it.
PARTS = {name: marks.PARTS[name][0] for name in ("self_repair", *TERMS)}


def draw(depth: pl.DataFrame, training: pl.DataFrame) -> alt.VConcatChart:
    """Resample ablation, top tokens, heads of the second half: a point per checkpoint and part, with its 95 %
    interval over prompts; below it the restored share, and the loss. Tokens are on a log scale; a checkpoint
    before training stands left of it, behind a dashed line. Models that do not state their training tokens are
    not drawn.
    """
    *tables, missing, left_out = _rows(depth, training)
    parts, shares, losses = tables
    x, zero, border = across(training[TOKENS].drop_nulls())
    # Before a model has learnt anything, the share is of hardly any effect.
    axes = (
        fitted(parts, "value", "Mean over heads (logits)"),
        share_axis(shares, SHARE, "Restored share", keep=0.8, ticks=5),
        fitted(losses, LOSS, "Loss (nats)", bars=False, include=()),
    )
    drawn = [
        (placed(_stood(table, x, zero), y=y), y) for table, y in zip(tables, axes, strict=True)
    ]
    panels = [_panel(rows, x, y, border) for rows, y in drawn]
    unknown = models_of(training.filter(pl.col(TOKENS).is_null()))
    return words.titled(
        alt.vconcat(*panels, spacing=14),
        TITLE,
        f"Resample ablation, {words.FROM_TOP_TOKENS}, heads of the second half of the layers",
        "Bars: 95 % intervals over prompts; parts of a checkpoint stand side by side",
        *["Left of the dashed line: before training, at 0 tokens"] * (0 in training[TOKENS]),
        *[f"Without a number of training tokens, not drawn: {', '.join(unknown)}"] * any(unknown),
        *words.left_out_groups(left_out),
        *words.notes_of(drawn, missing=missing),
    )


def caption(depth: pl.DataFrame, training: pl.DataFrame) -> str:
    parts, _, losses, *_ = _rows(depth, training)
    zero = ", 0 left of the dashed line" * (0 in losses[TOKENS])
    return (
        f"What makes up for ablated attention heads in checkpoints of a model, {words.listed(models_of(losses))},"
        f" against the tokens that each was trained on (log scale{zero}); resample"
        f" ablation, on {words.FROM_LARGEST}: {words.sample(parts, unit='model')}. {words.REPAIR} Top: self-repair"
        " and the parts that add up to it, in logits, means over the heads of the second half of the layers;"
        " middle: the share of the removed direct effect that self-repair restores, a ratio of such means, which"
        " says little where heads have hardly any effect yet. Bottom: the loss, the mean surprisal of the"
        f" {words.amount(losses['n_tokens'])} targets of the sample, which has no interval; bars are 95 %"
        " bootstrap intervals over prompts."
    )


def across(tokens: pl.Series) -> tuple[alt.X, float, float]:
    """The axis of numbers of tokens, on a log scale with a tick at each; where 0 stands, left of all others; the
    border before it."""
    trained = sorted(tokens.filter(tokens > 0)) or [1]
    zero, border = trained[0] / 10, trained[0] / 3
    places = [zero] * (0 in tokens) + trained
    margin = max(1.1, (places[-1] / places[0]) ** 0.04)
    domain = [places[0] / margin, places[-1] * margin]
    scale = alt.Scale(type="log", domain=domain, nice=False)
    label = f"datum.value < {border} ? '0' : replace(format(datum.value, '.2~s'), 'G', 'B')"
    axis = alt.Axis(values=places, labelExpr=label, labelOverlap="greedy", grid=False)
    return alt.X("place:Q", title="Training tokens", scale=scale, axis=axis), zero, border


def _stood(rows: pl.DataFrame, x: alt.X, zero: float) -> pl.DataFrame:
    """The rows with their `place`; parts of a checkpoint stand side by side about its own."""
    place = pl.when(pl.col(TOKENS) > 0).then(pl.col(TOKENS)).otherwise(zero)
    if "part" in rows.columns:
        names, (low, high) = list(marks.part_inks(rows)), x["scale"]["domain"]
        # On a log scale a step is a factor: a hundredth of the axis.
        beside = [(high / low) ** (0.008 * (n - (len(names) - 1) / 2)) for n in range(len(names))]
        place *= pl.col("part").replace_strict(names, beside, return_dtype=pl.Float64)
    return rows.with_columns(place=place)


def _panel(rows: pl.DataFrame, x: alt.X, y: Span, border: float) -> alt.LayerChart:
    """The checkpoints, joined if they were trained; the loss has no interval and need not be near 0."""
    loss, about = y.column == LOSS, ["part", "n_heads"] * ("part" in rows.columns)
    inks = marks.inks("part", "From", marks.part_inks(rows)) if about else alt.value(BLACK)
    tooltip = words.tips(rows, "model", TOKENS, *about, y)
    look: marks.Look = {"x": x, "color": inks, "tooltip": tooltip}
    dashed = marks.rule(x=border, color=SILVER, strokeDash=marks.DASHED)
    layers = [
        *[dashed] * (0 in rows[TOKENS]),
        *[marks.rule(y=0.0)] * (not loss),
        *marks.joined(rows, y, bars=not loss, where=f"datum.{TOKENS} > 0", **look),
    ]
    return alt.LayerChart(layer=layers, data=rows, width=560, height=260 if about else 130)


def _rows(
    depth: pl.DataFrame, training: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, int, list[str]]:
    """Parts, shares and losses of the checkpoints, from the one trained least; how many have no value; the
    second half, if it is left out of some model."""
    check_columns("E19", training, "training", TRAINING)
    known = training.drop_nulls(TOKENS).sort(TOKENS, maintain_order=True)
    if known.height < 2:
        raise NotMeasured(UNKNOWN)
    table = known.select("model", TOKENS).join(depth, on="model", maintain_order="left_right")
    half = [SECOND_HALF]
    parts, without_part, left_out = part_rows("E19", table, PARTS, TOKENS, depths=half)
    shares, without_share, _ = depth_rows("E19", table, SHARE, TOKENS, depths=half)
    losses, without_loss = table_rows(
        "E19", known, "training", columns=TRAINING, finite=[LOSS], one_model=False
    )
    return parts, shares, losses, without_part + without_share + without_loss, left_out
