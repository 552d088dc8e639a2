"""E17: chosen heads under every ablation, the one that does the least harm among them, and under a control."""

from __future__ import annotations

from functools import partial

import altair as alt
import polars as pl

from ..ablations import MEAN, RESAMPLE, ZERO
from ..other_ablations import COMPARED, OPTIMAL, RANDOM
from ..tables.compared_ablations import DIFFERENCE, RATIO
from ..vocabulary import bounded
from . import marks, words
from .axes import Span, fitted, placed
from .rows import table_rows
from .theme import AMBER, BLUE, GREEN, ORANGE, SILVER

TITLE = "Self-repair and harm under every ablation"
MOST_HEADS = 16
NAMES = {
    RESAMPLE.name: "resample",
    MEAN.name: "mean",
    ZERO.name: "zero",
    OPTIMAL: "optimal constant",
    RANDOM: "random change (control)",
}
INKS = dict(zip(NAMES.values(), (BLUE, GREEN, AMBER, ORANGE, SILVER), strict=True))
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


def draw(compared: pl.DataFrame, summaries: pl.DataFrame) -> alt.HConcatChart:
    """One model, a row per head and ablation on the head's top tokens: self-repair in logits, the restored
    share of the removed effect, compensation, and the harm to the model's output in nats, with 95 % intervals."""
    rows, missing = _rows(compared)
    share, slope = "Restored share of the effect", "Compensation (slope over tokens)"
    # Where an ablation removes little, the share is of hardly anything.
    near: marks.Look = {"include": (0.0, 1.0), "reach": 0.5}
    spans = (
        fitted(rows, "self_repair", "Self-repair (logits)", ticks=4),
        fitted(rows, "restored_share", share, percent=True, ticks=4, **near),
        fitted(rows, "compensation", slope, ticks=4, include=(0.0, 1.0)),
        fitted(rows, "loss", "Harm: KL(clean || ablated), nats", ticks=4),
    )
    parts = [(placed(rows.drop_nulls(span.column), x=span), span) for span in spans]
    panels = [_panel(*part, rows["name"]) for part in parts]
    told = partial(words.told, "E17", summaries, rows, unit="ratio")
    ratio = told("restored_ratio", group=RATIO)
    random = told("compensation", group=RANDOM)
    difference = told("compensation_difference", group=DIFFERENCE)
    return words.titled(
        alt.hconcat(*panels, spacing=22),
        TITLE,
        f"{rows['model'][0]}, {words.FROM_TOP_TOKENS}: {words.sample(rows)}; bars: 95 % intervals",
        f"Restored share, optimal constant over resample: {ratio}; compensation of a random change:"
        f" {random}, resample less random: {difference}",
        *words.notes_of(parts, missing=missing),
    )


def caption(compared: pl.DataFrame, summaries: pl.DataFrame) -> str:
    rows, _ = _rows(compared)
    removing = rows.filter(pl.col("ablation") != RANDOM)
    worse = removing.filter(pl.col("loss_above_optimal_high") < 0)
    shares = "; ".join(
        f"{NAMES[name]} {words.told('E17', summaries, rows, 'spoofing', group=name)}"
        for name in (RESAMPLE.name, MEAN.name, ZERO.name)
    )
    least = (
        f"another ablation does less harm than the trained constant of {words.named_heads(worse.to_dicts())}"
        if worse.height
        else "none of the other ablations does less harm to any of these heads, beyond its interval"
    )
    return (
        f"Heads of {rows['model'][0]} with large direct effects, ablated in every way on {words.FROM_LARGEST}"
        f" ({words.sample(rows)}); the optimal constant is the value of a head's output that harms the model's"
        " predictions least, trained on other prompts. Self-repair is the change of the target token's logit"
        " less the change of the head's own direct effect; the restored share is self-repair over the effect"
        " that the ablation removed; compensation is the slope of self-repair on that effect over a head's tokens:"
        " what part of a larger loss is made up for. Harm is the divergence of the model's predictions over all kinds of"
        f" tokens; what an ablation does beyond the optimal constant is spoofing, harm done by an input that the"
        f" model never sees: {shares} of the harm. The control changes the head's output as much as resampling"
        f" does, in a random direction. On these prompts, which no constant was trained on, {least}. Bars are 95 % intervals over prompts."
    )


def _panel(rows: pl.DataFrame, x: Span, names: pl.Series) -> alt.LayerChart:
    """All heads, in the same rows in every panel, also where one has no value; named in the first."""
    heads, first = names.unique(maintain_order=True).to_list(), x.column == DRAWN[0]
    axis = alt.Axis(grid=False, ticks=False, domain=False, labels=first)
    y = alt.Y("name:N", scale=alt.Scale(domain=heads), axis=axis, title="Head" if first else None)
    place: marks.Look = {"y": y, "yOffset": alt.YOffset("ablation:N", sort=list(COMPARED))}
    place["color"] = marks.inks("ablation_name", "Ablation", INKS)
    tooltip = words.tips(
        rows,
        *("name", "ablation_name", "self_repair"),
        restored_share="Restored share (%)",
        compensation="Compensation (slope)",
        loss="Harm (nats)",
        spoofing="Spoofing, share of the harm (%)",
        **{name: words.TITLES[name] for name in ("n_tokens", "n_prompts")},
    )
    layers = [
        marks.rule(x=0.0),
        marks.whiskers(x, along="x", strokeWidth=1.4, strokeOpacity=0.6).encode(**place),
        marks.points(rows).encode(x=x.x(), tooltip=tooltip, **place),
    ]
    return alt.LayerChart(layer=layers, data=rows, width=205, height=88 * len(heads))


def _rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The heads with the largest direct effects, every ablation of each, with their names."""
    rows, missing = table_rows(
        "E17",
        table,
        "compared_ablations",
        columns=COLUMNS,
        finite=["self_repair"],
        only={"ablation": COMPARED},
        empty=NOT_TRAINED,
    )
    largest = rows.filter(ablation=RESAMPLE.name).sort("direct_effect", descending=True)
    kept = largest.head(MOST_HEADS).select("layer", "head")
    rows = rows.join(kept, on=["layer", "head"], maintain_order="right_left")
    return rows.with_columns(
        name=pl.format("L{}H{}", "layer", "head"),
        ablation_name=pl.col("ablation").replace_strict(NAMES),
    ), missing
