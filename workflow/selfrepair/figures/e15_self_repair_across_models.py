"""E15: the share of the direct effect that is made up for, by quarter of the layers, a line per model."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from ..ablations import RESAMPLE
from ..vocabulary import QUARTERS, TOP, bounded
from . import words
from .axes import WITHIN, Span, interval_limits, n_cut, placed, share_limits
from .marks import model_colour, points, rule, whiskers
from .rows import models_of, table_rows, whole_groups
from .unmeasured import NOT_WHOLE, unmeasured

TITLE = "Self-repair across models"
SHARE = "self_repair_share"
# Models stand side by side about the middle of a quarter, over this part of its width.
WIDTH = 0.6
X = Span(
    "place",
    "Relative depth (quarter of the layers)",
    (0.0, 1.0),
    options={
        "values": [(quarter + 0.5) / len(QUARTERS) for quarter in range(len(QUARTERS))],
        "labelExpr": " : ".join(
            [f"datum.value < {(n + 1) / 4} ? '{name}'" for n, name in enumerate(QUARTERS[:-1])]
            + [f"'{QUARTERS[-1]}'"]
        ),
        "grid": False,
        "ticks": False,
        "labelPadding": 6,
    },
)


def draw(depth: pl.DataFrame) -> alt.LayerChart | alt.Chart:
    """Resample ablation, top tokens: ratio of means over the heads of a quarter, whiskers its 95 % interval.

    Quarters are what models of different depth have in common; within one, models stand side by side, in
    the order of the study. Without a quarter whose heads were all ablated: words that say so.

    Raises:
        InputError: a column is missing, or the table has no such rows.
    """
    whole, others = whole_groups("E15", depth, QUARTERS)
    if whole.is_empty() and others:
        return unmeasured(TITLE, NOT_WHOLE)
    rows, missing = _rows(whole)
    title = "Share of the direct effect made up for (%)"
    # So few points that a wild one would be among the outermost 5 %.
    limits = share_limits(interval_limits(rows, SHARE, keep=0.8))
    y = Span(SHARE, title, limits, percent=True, options={"tickCount": 8})
    rows = placed(rows, y=y)
    several = len(models_of(rows)) > 1
    chart = alt.LayerChart(layer=_layers(rows, y), data=rows).properties(width=560, height=340)
    return words.titled(
        chart,
        TITLE,
        f"Resample ablation, {words.FROM_TOP_TOKENS}; whisker: 95 % interval over prompts",
        *["Models stand side by side in a quarter, in the order of the legend"] * several,
        *words.left_out_groups(others),
        *words.notes(rows, missing=missing, cut=n_cut(rows, y)),
    )


def _layers(rows: pl.DataFrame, y: Span) -> list[alt.Chart]:
    colour = model_colour(models_of(rows))
    place: dict[str, Any] = {"x": X.x(), "y": y.y(), "color": colour}
    tooltip = [
        words.name_tip("model", "Model"),
        words.name_tip("depth", "Depth"),
        words.count_tip("n_heads", "Heads"),
        *words.interval_tip(SHARE, "Share", unit="of 1"),
    ]
    borders = [rule(x=n / len(QUARTERS), color="#dddddd") for n in range(1, len(QUARTERS))]
    # Not along the edge, where points lie that are beyond it.
    lines = alt.Chart().mark_line(strokeWidth=1.5, strokeOpacity=0.55).encode(**place)
    lines = lines.transform_filter(f"datum.edge == '{WITHIN}'")
    bars = whiskers(y, strokeWidth=2, strokeOpacity=0.9).encode(x=X.x(), color=colour)
    dots = points(rows).encode(**place, tooltip=tooltip).encode(size=alt.value(70))
    return [*borders, rule(y=0.0), lines, bars, dots.encode(fillOpacity=alt.value(1))]


def caption(depth: pl.DataFrame) -> str:
    whole, others = whole_groups("E15", depth, QUARTERS)
    if whole.is_empty() and others:
        return NOT_WHOLE
    rows, _ = _rows(whole)
    return (
        f"What part of an ablated head's direct effect is made up for, in {words.listed(models_of(rows))} under"
        f" resample ablation, on {words.FROM_LARGEST}: {words.sample(rows, unit='quarter')}."
        f" {words.REPAIR} Each point is the ratio of the mean self-repair to the mean direct effect over the heads"
        " of a quarter of a model's layers, so that models of different depth can be compared: 100 % would"
        " restore what the heads contributed directly, below zero the rest of the model adds to the loss. A line joins"
        " the quarters of a model that lie within the axis."
        " Whiskers are 95 % bootstrap intervals over prompts."
        + "".join(f" {line}." for line in words.left_out_groups(others))
    )


def _rows(depth: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The rows with `place`, where they stand across."""
    keys = ("model", "depth", "ablation", "selection", "n_heads", "n_tokens", "n_prompts")
    rows, missing = table_rows(
        "E15",
        depth,
        "depth",
        columns=[*keys, *bounded(SHARE)],
        finite=[SHARE],
        only={"ablation": [RESAMPLE.name], "selection": [TOP], "depth": QUARTERS},
        one_model=False,
    )
    models = models_of(rows)
    beside = {model: WIDTH * ((n + 0.5) / len(models) - 0.5) for n, model in enumerate(models)}
    middle = {name: n + 0.5 for n, name in enumerate(QUARTERS)}
    quarter, offset = (
        pl.col(name).replace_strict(places, return_dtype=pl.Float64)
        for name, places in (("depth", middle), ("model", beside))
    )
    return rows.with_columns(place=(quarter + offset) / len(QUARTERS)), missing
