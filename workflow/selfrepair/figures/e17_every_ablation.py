"""E17: chosen heads under every ablation, the one that does the least harm among them, and under a control."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import altair as alt
import polars as pl

from ..ablations import MEAN, RESAMPLE, ZERO
from ..other_ablations import COMPARED, OPTIMAL, RANDOM
from ..tables.compared_ablations import DIFFERENCE, RATIO
from ..vocabulary import bounded
from . import words
from .axes import Span, axis_limits, interval_limits, n_cut, placed
from .marks import points, rule
from .rows import estimate, models_of, summary_rows, table_rows
from .theme import AMBER, BLUE, GREEN, ORANGE, SILVER
from .unmeasured import is_unmeasured, unmeasured

TITLE = "Self-repair and harm under every ablation"
MOST_HEADS = 16
NAMES = {
    RESAMPLE.name: "resample",
    MEAN.name: "mean",
    ZERO.name: "zero",
    OPTIMAL: "optimal constant",
    RANDOM: "random change (control)",
}
COLOURS = {RESAMPLE.name: BLUE, MEAN.name: GREEN, ZERO.name: AMBER, OPTIMAL: ORANGE, RANDOM: SILVER}
DRAWN = ("self_repair", "restored_share", "compensation", "loss")
COLUMNS = (
    *("model", "layer", "head", "ablation", "n_tokens", "n_prompts"),
    *(column for name in (*DRAWN, "spoofing", "loss_above_optimal") for column in bounded(name)),
    "direct_effect",
)
NOT_TRAINED = (
    "Not measured: this study trains no constants for optimal ablation (experiments.optimal_prompts in the"
    " config), or their heads have no top token in its first prompts."
)


def draw(compared: pl.DataFrame, summaries: pl.DataFrame) -> alt.HConcatChart | alt.Chart:
    """One model, a row per head and ablation on the head's top tokens: self-repair in logits, the restored
    share of the removed effect, and the harm to the model's output in nats, with 95 % intervals.

    An empty table, of a study that trains no constants: words that say so.

    Raises:
        InputError: more than one model, a column is missing, or no estimates for the model.
    """
    if is_unmeasured("E17", compared, "compared_ablations", columns=COLUMNS):
        return unmeasured(TITLE, NOT_TRAINED)
    rows, missing = _rows(compared)
    model = models_of(rows)[0]
    spans = {
        "self_repair": Span(
            "self_repair", "Self-repair (logits)", interval_limits(rows, "self_repair")
        ),
        "restored_share": Span(
            "restored_share",
            "Restored share of the effect",
            # Where an ablation removes little, the share is of hardly anything.
            axis_limits(
                rows["restored_share"],
                *_ends(rows),
                core=rows["restored_share"],
                include=(0.0, 1.0),
                reach=0.5,
            ),
            percent=True,
        ),
        "compensation": Span(
            "compensation",
            "Compensation (slope over tokens)",
            interval_limits(rows, "compensation", include=(0.0, 1.0)),
        ),
        "loss": Span("loss", "Harm: KL(clean || ablated), nats", interval_limits(rows, "loss")),
    }
    heads = rows["name"].unique(maintain_order=True).to_list()
    shown, cut = {}, 0
    for name, span in spans.items():
        known = rows.filter(pl.col(name).is_not_null())
        shown[name] = placed(known, x=span)
        cut += n_cut(shown[name], span)
    spans = {name: replace(span, options={"tickCount": 4}) for name, span in spans.items()}
    panels = [
        _panel(shown[name], span, heads, names=at == 0)
        for at, (name, span) in enumerate(spans.items())
    ]
    beyond = pl.concat([each.select("edge") for each in shown.values()])
    return words.titled(
        alt.hconcat(*panels, spacing=22),
        TITLE,
        f"{model}, {words.FROM_TOP_TOKENS}: {words.sample(rows)}; bars: 95 % intervals",
        *_estimates(summaries, model),
        *words.notes(beyond, missing=missing, cut=cut),
    )


def caption(compared: pl.DataFrame, summaries: pl.DataFrame) -> str:
    if is_unmeasured("E17", compared, "compared_ablations", columns=COLUMNS):
        return NOT_TRAINED
    rows, _ = _rows(compared)
    model = models_of(rows)[0]
    removing = rows.filter(pl.col("ablation") != RANDOM)
    worse = removing.filter(pl.col("loss_above_optimal_high") < 0)
    spoofed = summary_rows("E17", summaries, model, experiment="E17", quantity="spoofing")
    shares = "; ".join(
        f"{NAMES[name]} {words.estimated(estimate(spoofed, group=name))}"
        for name in (RESAMPLE.name, MEAN.name, ZERO.name)
    )
    least = (
        " On these prompts, which no constant was trained on, another ablation does less harm than the trained"
        f" constant of {words.named_heads(worse.to_dicts())}."
        if worse.height
        else " On these prompts, which no constant was trained on, none of the other ablations does less harm to"
        " any of these heads, beyond its interval."
    )
    return (
        f"Heads of {model} with large direct effects, ablated in every way on {words.FROM_LARGEST}"
        f" ({words.sample(rows)}); the optimal constant is the value of a head's output that harms the model's"
        " predictions least, trained on other prompts. Self-repair is the change of the target token's logit"
        " less the change of the head's own direct effect; the restored share is self-repair over the effect"
        " that the ablation removed; compensation is the slope of self-repair on that effect over a head's tokens:"
        " what part of a larger loss is made up for. Harm is the divergence of the model's predictions over all kinds of"
        f" tokens; what an ablation does beyond the optimal constant is spoofing, harm done by an input that the"
        f" model never sees: {shares} of the harm. The control changes the head's output as much as resampling"
        f" does, in a random direction.{least} Bars are 95 % intervals over prompts."
    )


def _panel(rows: pl.DataFrame, span: Span, heads: list[str], *, names: bool) -> alt.LayerChart:
    """All heads, in the same rows in every panel, also where one has no value."""
    look: Any = (
        {"title": "Head", "labelFontSize": 12} if names else {"title": None, "labels": False}
    )
    axis = alt.Axis(grid=False, ticks=False, domain=False, **look)
    rows_of_heads = alt.Scale(domain=heads)
    y = alt.Y("name:N", scale=rows_of_heads, axis=axis, title="Head" if names else None)
    offset = alt.YOffset("ablation:N", sort=list(COMPARED))
    scale = alt.Scale(
        domain=[NAMES[name] for name in COMPARED], range=[COLOURS[name] for name in COMPARED]
    )
    colour = alt.Color("ablation_name:N", title="Ablation", scale=scale)
    _, low, high = bounded(span.column)
    bars = alt.Chart().transform_filter(f"isValid(datum.{low}) && isValid(datum.{high})")
    bars = bars.mark_rule(strokeWidth=1.4, strokeOpacity=0.6)
    tooltip = [
        words.name_tip("name", "Head"),
        words.name_tip("ablation_name", "Ablation"),
        *words.interval_tip("self_repair", "Self-repair"),
        words.tip("restored_share", "Restored share", ".0%"),
        *words.interval_tip("compensation", "Compensation", unit="slope"),
        *words.interval_tip("loss", "Harm", unit="nats"),
        words.tip("spoofing", "Spoofing, share of the harm", ".0%"),
        words.count_tip("n_tokens", "Tokens"),
        words.count_tip("n_prompts", "Prompts"),
    ]
    layers = [
        rule(x=0.0),
        bars.encode(x=span.x(low), x2=f"{high}:Q", y=y, yOffset=offset, color=colour),
        points(rows).encode(x=span.x(), y=y, yOffset=offset, color=colour, tooltip=tooltip),
    ]
    return alt.LayerChart(layer=layers, data=rows).properties(width=205, height=88 * len(heads))


def _estimates(summaries: pl.DataFrame, model: str) -> list[str]:
    """The numbers that the claims are about, in words."""

    def of(quantity: str, group: str, unit: Any) -> str:
        rows = summary_rows("E17", summaries, model, experiment="E17", quantity=quantity)
        return words.estimated(estimate(rows, group=group), unit=unit)

    return [
        f"Restored share, optimal constant over resample: {of('restored_ratio', RATIO, 'ratio')};"
        f" compensation of a random change: {of('compensation', RANDOM, 'ratio')},"
        f" resample less random: {of('compensation_difference', DIFFERENCE, 'ratio')}",
    ]


def _ends(rows: pl.DataFrame) -> list[pl.Series]:
    return [rows[name] for name in bounded("restored_share")[1:]]


def _rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The heads with the largest direct effects, every ablation of each, with their names."""
    rows, missing = table_rows(
        "E17",
        table,
        "compared_ablations",
        columns=COLUMNS,
        finite=["self_repair"],
        only={"ablation": COMPARED},
    )
    largest = rows.filter(ablation=RESAMPLE.name).sort("direct_effect", descending=True)
    kept = largest.head(MOST_HEADS).select("layer", "head")
    rows = rows.join(kept, on=["layer", "head"], maintain_order="right_left")
    return rows.with_columns(
        name=pl.format("L{}H{}", "layer", "head"),
        ablation_name=pl.col("ablation").replace_strict(NAMES),
    ), missing
