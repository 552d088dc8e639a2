"""E19: self-repair, its parts and the loss of a model's checkpoints, against the tokens that they were trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from ..ablations import RESAMPLE
from ..tables.terms import terms_of
from ..vocabulary import SECOND_HALF, TOP, bounded
from . import words
from .axes import WITHIN, Span, axis_limits, interval_limits, n_cut, placed, share_limits
from .marks import DASHED, points, rule, whiskers
from .rows import check_columns, models_of, stacked, table_rows, whole_groups
from .theme import AMBER, BLACK, BLUE, GREEN, PINK, SILVER
from .unmeasured import NOT_WHOLE, unmeasured

TITLE = "Self-repair over training"
UNKNOWN = (
    "Not measured: fewer than two models of this study state on how many tokens they were trained"
    " (training_tokens of a model in the config)."
)
PARTS = {
    "from_heads": ("other heads", BLUE),
    "from_mlps": ("MLPs", PINK),
    "from_post_norms": ("post-norms", AMBER),
    "from_norm": ("final norm", GREEN),
    "self_repair": ("all self-repair", BLACK),
}
SHARE, LOSS, TOKENS = "restored_share", "mean_surprisal", "training_tokens"
KEYS = ("model", "ablation", "selection", "depth", "n_heads", "n_tokens", "n_prompts")
TRAINING = ("model", TOKENS, LOSS, "n_tokens")
UNITS = {10**12: "T", 10**9: "B", 10**6: "M", 10**3: "k", 1: ""}
WIDTH = 560


@dataclass(frozen=True)
class Drawn:
    """The rows of each panel, with `training_tokens`, and how many have no finite value.

    parts: a row per checkpoint and part; shares, losses: a row per checkpoint.
    """

    parts: pl.DataFrame
    shares: pl.DataFrame
    losses: pl.DataFrame
    missing: int


def draw(depth: pl.DataFrame, training: pl.DataFrame) -> alt.VConcatChart | alt.Chart:
    """Resample ablation, top tokens, heads of the second half: a point per checkpoint and part, with its 95 %
    interval over prompts. Below it the restored share, and the loss.

    Tokens are on a log scale; a checkpoint before training stands left of it, behind a dashed line. Models
    that do not state their training tokens are not drawn. If fewer than two do, or the second half was not
    ablated whole: words that say so.

    Raises:
        InputError: a column is missing, or no rows with these checkpoints.
    """
    if (reason := _nothing(depth, training)) is not None:
        return unmeasured(TITLE, reason)
    rows = _rows(depth, training)
    places = Places.of(training[TOKENS].drop_nulls())
    spans = {
        "value": Span("value", "Mean over heads (logits)", interval_limits(rows.parts, "value")),
        # Before a model has learnt anything, the share is of hardly any effect.
        SHARE: Span(
            SHARE,
            "Restored share",
            share_limits(interval_limits(rows.shares, SHARE, keep=0.8)),
            percent=True,
        ),
        LOSS: Span(LOSS, "Loss (nats)", axis_limits(rows.losses[LOSS], include=())),
    }
    shown = {
        name: placed(places.placed(table), y=spans[name])
        for name, table in (("value", rows.parts), (SHARE, rows.shares), (LOSS, rows.losses))
    }
    panels = [
        _panel(shown["value"], spans["value"], places, colour=_colour(rows.parts), height=260),
        _panel(shown[SHARE], spans[SHARE], places, height=130),
        _panel(shown[LOSS], spans[LOSS], places, height=130, last=True),
    ]
    cut = sum(n_cut(shown[name], spans[name]) for name in ("value", SHARE))
    left_out = _left_out(training)
    return words.titled(
        alt.vconcat(*panels, spacing=14),
        TITLE,
        f"Resample ablation, {words.FROM_TOP_TOKENS}, heads of the second half of the layers",
        "Bars: 95 % intervals over prompts; parts of a checkpoint stand side by side",
        *["Left of the dashed line: before training, at 0 tokens"] * places.has_zero,
        *[f"Without a number of training tokens, not drawn: {left_out}"] * bool(left_out),
        *words.notes(
            pl.concat([each.select("edge") for each in shown.values()]),
            missing=rows.missing,
            cut=cut,
        ),
    )


def caption(depth: pl.DataFrame, training: pl.DataFrame) -> str:
    if (reason := _nothing(depth, training)) is not None:
        return reason
    rows = _rows(depth, training)
    zero = ", 0 left of the dashed line" * Places.of(training[TOKENS].drop_nulls()).has_zero
    return (
        f"What makes up for ablated attention heads in checkpoints of a model, {words.listed(models_of(rows.losses))},"
        f" against the tokens that each was trained on (log scale{zero}); resample ablation, on"
        f" {words.FROM_LARGEST}: {words.sample(rows.parts, unit='model')}. {words.REPAIR} Top: self-repair and the"
        " parts that add up to it, in logits, means over the heads of the second half of the layers; middle: the"
        " share of the removed direct effect that self-repair restores, a ratio of such means, which says little"
        " where heads have hardly any effect yet. Bottom: the loss, the mean surprisal of the"
        f" {words.amount(rows.losses['n_tokens'])} targets of the sample, which has no interval; bars are 95 %"
        " bootstrap intervals over prompts."
    )


@dataclass(frozen=True)
class Places:
    """Where a number of training tokens stands across: at its logarithm, 0 left of all others.

    low, high: logarithms to base 10 of the smallest number above 0 and of the largest.
    """

    low: float
    high: float
    has_zero: bool

    @classmethod
    def of(cls, tokens: pl.Series) -> Places:
        above = tokens.filter(tokens > 0).cast(pl.Float64).log10()
        ends = (above.min(), above.max()) if len(above) else (0.0, 0.0)
        return cls(*ends, has_zero=len(above) < len(tokens))  # type: ignore[arg-type]

    @property
    def gap(self) -> float:
        """From the smallest number above 0 to where 0 stands."""
        return 0.1 * (self.high - self.low) or 1.0

    @property
    def limits(self) -> tuple[float, float]:
        low = self.low - self.gap * self.has_zero
        margin = 0.04 * (self.high - low) or 0.5
        return low - margin, self.high + margin

    def placed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with `place`; parts of one checkpoint stand side by side, in the order of PARTS."""
        tokens = pl.col(TOKENS)
        place = pl.when(tokens > 0).then(tokens.log10()).otherwise(self.low - self.gap)
        if "part" in rows.columns:
            names = [name for name, _ in PARTS.values() if name in set(rows["part"])]
            step = 0.008 * (self.limits[1] - self.limits[0])
            beside = {name: step * (at - (len(names) - 1) / 2) for at, name in enumerate(names)}
            place += pl.col("part").replace_strict(beside, return_dtype=pl.Float64)
        return rows.with_columns(place=place)

    def span(self, *, title: bool) -> Span:
        """The axis: labels are numbers of tokens."""
        ticks = _ticks(self.low, self.high)
        labels = {float(np.log10(tick)): _short(tick) for tick in ticks}
        labels = ({self.low - self.gap: "0"} if self.has_zero else {}) | labels
        values = list(labels)
        # A label holds up to halfway to the next tick: numbers need not be equal to the last digit.
        parts = [f"datum.value < {(a + b) / 2} ? '{labels[a]}'" for a, b in pairwise(values)]
        words_of = " : ".join([*parts, f"'{labels[values[-1]]}'"])
        options = {"values": values, "labelExpr": words_of, "labels": title, "grid": False}
        return Span("place", "Training tokens" if title else None, self.limits, options=options)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within these powers of ten: powers of ten, or if those are fewer than two, twos and
    fives as well, or else the ends."""
    powers = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    for factors in ((1,), (1, 2, 5)):
        numbers = [factor * 10.0**power for power in powers for factor in factors]
        inside = [n for n in numbers if low - 1e-9 <= np.log10(n) <= high + 1e-9]
        if len(inside) >= 2:
            return inside
    return [10.0**low] if low == high else [10.0**low, 10.0**high]


def _short(tokens: float) -> str:
    """300 B, 2.1 M."""
    unit = next(unit for unit in UNITS if tokens >= unit * (1 - 1e-9))
    return f"{tokens / unit:.3g} {UNITS[unit]}".strip()


def _panel(
    rows: pl.DataFrame,
    y: Span,
    places: Places,
    *,
    height: int,
    colour: alt.Color | None = None,
    last: bool = False,
) -> alt.LayerChart:
    """A line through the checkpoints that were trained, with points and, where there are some, intervals."""
    x = places.span(title=last)
    look: dict[str, Any] = {"x": x.x(), "y": y.y()}
    shade: dict[str, Any] = {"color": colour or alt.value(BLACK)}
    # Not along the edge, nor to a checkpoint that has no place on a log scale.
    lines = alt.Chart().mark_line(strokeWidth=1.5, strokeOpacity=0.55).encode(**look, **shade)
    lines = lines.transform_filter(f"datum.edge == '{WITHIN}' && datum.{TOKENS} > 0")
    dots = points(rows).encode(**look, **shade, tooltip=_tooltip(rows, y))
    layers = [lines, dots.encode(size=alt.value(45), fillOpacity=alt.value(1))]
    if bounded(y.column)[1] in rows.columns:
        bars = whiskers(y, strokeWidth=1.5, strokeOpacity=0.8).encode(x=x.x(), **shade)
        layers = [rule(y=0.0), lines, bars, layers[1]]
    if places.has_zero:
        layers = [_border(places, x), *layers]
    return alt.LayerChart(layer=layers, data=rows).properties(width=WIDTH, height=height)


def _border(places: Places, x: Span) -> alt.Chart:
    """The line between a checkpoint before training and all others."""
    at = alt.Chart(alt.InlineData(values=[{"border": places.low - places.gap / 2}]))
    return at.mark_rule(color=SILVER, strokeDash=DASHED).encode(x=x.x("border"))


def _colour(parts: pl.DataFrame) -> alt.Color:
    drawn = set(parts["part"])
    names, colours = zip(*(part for part in PARTS.values() if part[0] in drawn), strict=True)
    return alt.Color(
        "part:N", title="From", scale=alt.Scale(domain=list(names), range=list(colours))
    )


def _tooltip(rows: pl.DataFrame, y: Span) -> list[alt.Tooltip]:
    about = [words.name_tip("model", "Model"), words.count_tip(TOKENS, "Training tokens")]
    if y.column == LOSS:
        return [*about, words.tip(LOSS, "Loss (nats)")]
    if y.column == SHARE:
        return [*about, *words.interval_tip(SHARE, "Restored share", unit="of 1")]
    part = words.name_tip("part", "From")
    heads = words.count_tip("n_heads", "Heads")
    return [*about, part, *words.interval_tip("value", "Mean over heads"), heads]


def _nothing(depth: pl.DataFrame, training: pl.DataFrame) -> str | None:
    """Why there is nothing to draw, if there is not.

    Raises:
        InputError: a column of either table is missing.
    """
    check_columns("E19", training, "training", TRAINING)
    drawn = [column for name in (*PARTS, SHARE) for column in bounded(name)]
    check_columns("E19", depth, "depth", [*KEYS, *drawn])
    if training[TOKENS].count() < 2:
        return UNKNOWN
    whole, others = whole_groups("E19", depth, [SECOND_HALF])
    return NOT_WHOLE if whole.is_empty() and others else None


def _left_out(training: pl.DataFrame) -> str:
    return words.listed(models_of(training.filter(pl.col(TOKENS).is_null())))


def _rows(depth: pl.DataFrame, training: pl.DataFrame) -> Drawn:
    """What the panels draw, from the checkpoint trained least to the one trained most."""
    known = training.drop_nulls(TOKENS).sort(TOKENS, maintain_order=True)
    tokens = known.select("model", TOKENS)
    of_known = tokens.join(depth, on="model", maintain_order="left_right")
    parts = stacked(of_known, ["self_repair", *terms_of(of_known)], *KEYS, TOKENS)
    names = {name: part for name, (part, _) in PARTS.items()}
    parts = parts.with_columns(part=pl.col("quantity").replace_strict(names))
    drawn, without = _of_depth(parts, ["part"], "value")
    shares, no_share = _of_depth(of_known, [], SHARE)
    losses, no_loss = table_rows(
        "E19", known, "training", columns=TRAINING, finite=[LOSS], one_model=False
    )
    return Drawn(drawn, shares, losses, without + no_share + no_loss)


def _of_depth(table: pl.DataFrame, columns: Sequence[str], value: str) -> tuple[pl.DataFrame, int]:
    return table_rows(
        "E19",
        table,
        "depth",
        columns=[*KEYS, TOKENS, *columns, *bounded(value)],
        finite=[value],
        only={"ablation": [RESAMPLE.name], "selection": [TOP], "depth": [SECOND_HALF]},
        one_model=False,
    )
