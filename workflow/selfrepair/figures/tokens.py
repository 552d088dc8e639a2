"""Figures of the chosen heads token by token, E3 and E4: pure functions from tables to a chart.

`tokens` has a row per top token of each chosen head (resample ablation), `scale_ratios` one per
such token and ablation, `summaries` the shares with their bootstrap intervals. Effects in logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from .plotting import (
    COLOURS,
    GREY,
    INSIDE,
    LEFT,
    LINE,
    LINES,
    MOST_POINTS,
    RIGHT,
    TOKEN_TIP,
    Limits,
    Span,
    across_rule,
    axis_limits,
    axis_notes,
    axis_scale,
    chart_of,
    cloud,
    crowded_panels,
    density_note,
    edge_shape,
    estimate,
    finish,
    first_in_row,
    haloed,
    heads_in,
    level_rule,
    line_marks,
    listed,
    logits_tip,
    n_outside,
    named_heads,
    panel_grid,
    percent_axis,
    placed,
    placed_on_both,
    plain_tip,
    share_words,
    summary_rows,
    table_rows,
    title_of,
    titled,
    tokens_per_head,
)

TOKEN_COLUMNS = (
    *("model", "layer", "head", "prompt", "position"),
    *("direct_effect", "ablated_direct_effect", "delta_logit", "self_repair", "region"),
)
RATIO_COLUMNS = (
    *("model", "ablation", "layer", "head", "prompt", "position"),
    *("ratio", "direct_effect"),
)
ABLATIONS = ("resample", "mean", "zero")
# From the top of the panel down, each with its colour and the slope of its lower boundary.
REGIONS = {
    "over-correction": (COLOURS[0], 0.0),
    "repair": (COLOURS[5], -0.5),
    "under-repair": (COLOURS[4], -1.0),
    "breakage": (COLOURS[1], None),
}
# From one region's label, of three lines, to the next, in pixels.
LABEL_STEP = 3 * LINE + 8
E3_SIDE = 300
HISTOGRAM_BINS = 40


def tokens_effect_against_change(tokens: pl.DataFrame, summaries: pl.DataFrame) -> alt.ConcatChart:
    """E3: direct effect against the logit's change, token by token (both logits).

    One model, resample ablation, a panel per chosen head. The lines y = 0, -x/2 and -x bound the
    four regions; beside each stands its share of the head's top tokens and of all tokens.

    Raises:
        InputError: more than one model, a missing column, or no rows or shares for the model.
    """
    columns = ("direct_effect", "delta_logit")
    rows, missing = table_rows("E3", tokens, "tokens", columns=TOKEN_COLUMNS, finite=columns)
    model = rows["model"][0]
    shares = summary_rows("E3", summaries, model, experiment="E3", quantity="region_share")
    domains: dict[str, Any] = {
        "x_domain": axis_limits(rows[columns[0]]),
        "y_domain": axis_limits(rows[columns[1]]),
    }
    points = placed_on_both(rows, *columns, **domains)
    shape = edge_shape(points, title="Token")
    heads = heads_in(points)
    panels = [
        _token_panel(
            points.filter(layer=head["layer"], head=head["head"]),
            head,
            shares.filter(layer=head["layer"], head=head["head"]),
            **domains,
            shape=shape,
            first=first_in_row(index, len(heads)),
        )
        for index, head in enumerate(heads)
    ]
    subtitle = [
        f"{model}, resample ablation, each head's top 2 % of tokens: {tokens_per_head(rows)}",
        "Beside each region: its share of these tokens, 95 % interval, and its share of all tokens",
        *density_note(points, "layer", "head"),
        *axis_notes(outside=n_outside(points), drawn=points.height, missing=missing),
    ]
    negative = rows.filter(pl.col("direct_effect") <= 0).height
    if negative:
        subtitle.append(f"Tokens with a direct effect ≤ 0, to which no line applies: {negative:,}")
    return finish(panel_grid(panels), "Self-repair token by token", subtitle)


def scale_ratio_histogram(scale_ratios: pl.DataFrame, summaries: pl.DataFrame) -> alt.ConcatChart:
    """E4: by how much ablating a head shrinks the final norm's scale, S / S' (no unit).

    One model; a column per chosen head, a row per ablation in the table, all on one axis. Bars are
    shares of the head's top tokens; one boundary of the bins is 1.

    Raises:
        InputError: more than one model, a missing column, or no rows or shares for the model.
    """
    rows, missing = table_rows(
        "E4", scale_ratios, "scale_ratios", columns=RATIO_COLUMNS, finite=["ratio"]
    )
    model = rows["model"][0]
    shares = summary_rows("E4", summaries, model, experiment="E4", quantity="share_above_1")
    domain = axis_limits(rows["ratio"], include=[1.0], reach=0.25)
    points = _turned(placed(rows, "ratio", domain))
    edges = bins_around_one(domain)
    cells = {
        (ablation, head["layer"], head["head"]): points.filter(
            ablation=ablation, layer=head["layer"], head=head["head"]
        )
        for ablation in _ablations(rows)
        for head in heads_in(rows)
    }
    counts = {key: binned(cell, edges) for key, cell in cells.items()}
    tallest = max(float(count["share"].max() or 0) for count in counts.values())  # type: ignore[arg-type]
    heads, ablations = heads_in(rows), _ablations(rows)
    panels = [
        _ratio_panel(
            counts[key],
            cells[key],
            title=title_of(head) if ablation == ablations[0] else None,
            row=estimate(shares, layer=key[1], head=key[2], group=ablation),
            domain=(edges[0], edges[-1]),
            tallest=tallest,
            ablation=ablation,
            first=head == heads[0],
            last=ablation == ablations[-1],
            width=360 if len(heads) == 1 else 190 if len(heads) <= 4 else 130,
        )
        for ablation in ablations
        for head in heads
        for key in [(ablation, head["layer"], head["head"])]
    ]
    subtitle = [
        f"{model}; each head's top 2 % of tokens: {tokens_per_head(rows, 'ablation')}",
        "Bars: share of the head's tokens; dashed: no change; in each panel the share above 1"
        " and its 95 % interval",
        *_pooled_note(shares, ablations),
        *axis_notes(outside=n_outside(points), drawn=points.height, missing=missing),
    ]
    chart = alt.concat(*panels, columns=len(heads), spacing=16)
    return finish(chart, "Change of the final norm's scale", subtitle)


# Captions


def caption_e3(tokens: pl.DataFrame, summaries: pl.DataFrame) -> str:
    columns = ("direct_effect", "delta_logit")
    rows, _ = table_rows("E3", tokens, "tokens", columns=TOKEN_COLUMNS, finite=columns)
    model = rows["model"][0]
    summary_rows("E3", summaries, model, experiment="E3", quantity="region_share")
    crowded = crowded_panels(rows, "layer", "head").any()
    mark = "The darker a cell, the more tokens fall into it" if crowded else "A point is one token"
    return (
        f"{mark}, for {named_heads(heads_in(rows))} of {model} under resample ablation, on each"
        f" head's top tokens (the 2 % with its largest direct effect): {tokens_per_head(rows)}."
        " Across: the head's direct effect on the logit of the token to predict; up: by how much"
        " that logit changes when the head is ablated. Below the line y = −x the logit falls by"
        " more than the direct effect (breakage), between y = −x and y = −x/2 less than half of it"
        " is made up for (under-repair), up to y = 0 at least half (repair), and above that the"
        " logit rises although the head is gone (over-correction). The numbers beside each region"
        " are its share of these tokens with a 95 % bootstrap interval over prompts, and its share"
        " of all tokens: self-repair is noisy where the shares are spread over several regions."
    )


def caption_e4(scale_ratios: pl.DataFrame, summaries: pl.DataFrame) -> str:
    rows, _ = table_rows(
        "E4", scale_ratios, "scale_ratios", columns=RATIO_COLUMNS, finite=["ratio"]
    )
    model = rows["model"][0]
    summary_rows("E4", summaries, model, experiment="E4", quantity="share_above_1")
    return (
        f"The final norm divides the residual stream by its scale; shown is the scale S with all"
        f" heads over the scale S' when one is ablated, for {named_heads(heads_in(rows))} of"
        f" {model} under {listed(_ablations(rows))} ablation, on each head's top tokens (the 2 %"
        f" with its largest direct effect): {tokens_per_head(rows, 'ablation')}. Above 1, to"
        " the right of the dashed line, the ablated stream is divided by less, so all that is left in it counts for"
        " more: this alone restores part of the lost logit. The printed share of tokens above 1"
        " carries a 95 % bootstrap interval over prompts."
    )


# E3


def _token_panel(
    points: pl.DataFrame,
    head: Mapping[str, Any],
    shares: pl.DataFrame,
    *,
    x_domain: Limits,
    y_domain: Limits,
    shape: alt.Shape,
    first: bool,
) -> alt.LayerChart:
    x = Span("direct_effect", "Direct effect (logits)", x_domain)
    title = "Change of the logit when ablated (logits)" if first else None
    y = Span("delta_logit", title, y_domain)
    scale = alt.Scale(domain=list(REGIONS), range=[colour for colour, _ in REGIONS.values()])
    colour = alt.Color("region:N", scale=scale, legend=None)
    effects = ("direct_effect", "ablated_direct_effect", "delta_logit", "self_repair")
    region = alt.Tooltip(field="region", type="nominal", title="Region")
    tooltip = [*TOKEN_TIP, *map(logits_tip, effects), region]
    dots = cloud(points, x=x, y=y, colour=colour, shape=shape, tooltip=tooltip)
    lines = [
        line_marks(boundary(slope, x_domain, y_domain), strokeDash=[5, 3])
        for _, slope in REGIONS.values()
        if slope is not None
    ]
    few = points.height <= MOST_POINTS
    labels = _region_labels(
        shares, x_domain=x_domain, y_domain=y_domain, colour=colour if few else None
    )
    panel = alt.LayerChart(layer=[level_rule(0.0), *dots, *lines, *labels])
    return titled(panel, title_of(head), f"{points.height:,} top tokens", side=E3_SIDE)


def boundary(slope: float, x_domain: Limits, y_domain: Limits) -> list[dict[str, float]]:
    """The two ends of y = slope * x, for positive x, within the axes (which both contain 0)."""
    stop = x_domain[1] if slope == 0 else min(x_domain[1], y_domain[0] / slope)
    return [{"x": 0.0, "y": 0.0}, {"x": stop, "y": slope * stop}]


def _region_labels(
    shares: pl.DataFrame, *, x_domain: Limits, y_domain: Limits, colour: alt.Color | None
) -> list[alt.Chart]:
    """Each region's name and shares to the right of the panel, at its height there."""
    rows = [
        {"region": region, "words": _region_words(shares, region), "y": place}
        for region, place in zip(REGIONS, _label_places(x_domain[1], y_domain), strict=True)
    ]
    y = alt.Y("y:Q", scale=axis_scale(y_domain))
    data = alt.Chart(alt.Data(values=rows))
    text = data.mark_text(align="left", baseline="middle", fontSize=11, **LINES).encode(
        x=alt.value(E3_SIDE + (18 if colour else 8)), y=y, text="words:N"
    )
    if colour is None:
        return [text]
    square = data.mark_point(filled=True, shape="square", size=60, opacity=1)
    return [square.encode(x=alt.value(E3_SIDE + 9), y=y, color=colour), text]


def _region_words(shares: pl.DataFrame, region: str) -> str:
    lines = [region, share_words(estimate(shares, group=f"top/{region}"))]
    every = estimate(shares, group=f"all/{region}")
    if every is not None:
        lines.append(f"all tokens: {100 * every['value']:.0f} %")
    return "\n".join(lines)


def _label_places(x_right: float, y_domain: Limits) -> list[float]:
    """Heights of the labels in the units of y: mid region at the right edge, moved apart."""
    low, high = y_domain
    bounds = [high, *(slope * x_right for _, slope in REGIONS.values() if slope is not None), low]
    inside = [min(max(bound, low), high) for bound in bounds]
    scale = E3_SIDE / (high - low)
    wanted = [(high - (above + below) / 2) * scale for above, below in pairwise(inside)]
    return [high - place / scale for place in spread(wanted, LABEL_STEP, E3_SIDE)]


def spread(places: Sequence[float], gap: int, length: int) -> list[float]:
    """Ascending places at least `gap` apart within 0..length, as near as that allows."""
    moved: list[float] = []
    for index, place in enumerate(places):
        room = length - gap * (len(places) - index - 0.5)
        nearest = moved[-1] + gap if moved else gap / 2
        moved.append(max(nearest, min(place, room)))
    return moved


# E4


def _ablations(rows: pl.DataFrame) -> list[str]:
    present = rows["ablation"].unique(maintain_order=True).to_list()
    return [name for name in ABLATIONS if name in present] + [
        name for name in present if name not in ABLATIONS
    ]


def _pooled_note(shares: pl.DataFrame, ablations: Sequence[str]) -> list[str]:
    pooled = shares.filter(pl.col("layer").is_null())
    words = [f"{name} {share_words(estimate(pooled, group=name))}" for name in ablations]
    return [f"Above 1 over all of these heads: {', '.join(words)}"] if pooled.height else []


def _turned(points: pl.DataFrame) -> pl.DataFrame:
    """`placed` speaks of heights; this axis lies."""
    sides = {"above the axis": RIGHT, "below the axis": LEFT}
    return points.with_columns(pl.col("edge").replace(sides))


def bins_around_one(domain: Limits) -> list[float]:
    """Boundaries of equal bins that cover the domain, one of them exactly 1."""
    low, high = domain
    width = (high - low) / HISTOGRAM_BINS
    start, stop = int(np.floor((low - 1) / width)), int(np.ceil((high - 1) / width))
    return [1 + width * step for step in range(start, stop + 1)]


def binned(points: pl.DataFrame, edges: Sequence[float]) -> pl.DataFrame:
    """Per bin that is not empty: its ends, count, and share of all the points (also those beyond
    the axis). A ratio of exactly 1 is not above 1, so bins contain their upper end."""
    inside = points.filter(pl.col("edge") == INSIDE)["ratio"].to_numpy()
    index = np.clip(np.searchsorted(edges, inside, side="left") - 1, 0, len(edges) - 2)
    counts = np.bincount(index, minlength=len(edges) - 1)
    full = np.flatnonzero(counts)
    ends = np.asarray(edges)
    return pl.DataFrame(
        {
            "start": ends[full],
            "stop": ends[full + 1],
            "count": counts[full],
            "share": counts[full] / max(points.height, 1),
        },
        schema_overrides={"count": pl.Int64, "share": pl.Float64},
    )


def _ratio_panel(
    counts: pl.DataFrame,
    points: pl.DataFrame,
    *,
    title: str | None,
    row: Mapping[str, Any] | None,
    domain: Limits,
    tallest: float,
    ablation: str,
    first: bool,
    last: bool,
    width: int,
) -> alt.LayerChart:
    axis = alt.Axis(labels=last, ticks=last, tickCount=3, labelFlush=False, grid=False)
    x_title = "S / S' (ratio)" if last else None
    x = alt.X("start:Q", title=x_title, scale=axis_scale(domain), axis=axis)
    name = [f"{ablation.capitalize()}:", "tokens (%)"] if first else None
    # Room above the bars for the words.
    y_domain = (0.0, 1.5 * tallest or 1.0)
    ticks = percent_axis(tickCount=3, labels=first, ticks=first)
    y = alt.Y("share:Q", title=name, scale=axis_scale(y_domain), axis=ticks)
    above = alt.condition("datum.start >= 1", alt.value(COLOURS[0]), alt.value("#999999"))
    tooltip = [
        plain_tip("start", "From", ".4f"),
        plain_tip("stop", "To", ".4f"),
        plain_tip("count", "Tokens"),
        plain_tip("share", "Share", ".1%"),
    ]
    bars = chart_of(counts).mark_bar(binSpacing=0.5)
    layers: list[alt.Chart] = [
        bars.encode(x=x, x2="stop:Q", y=y, y2=alt.datum(0.0), color=above, tooltip=tooltip),
        across_rule(1.0, color="black", strokeDash=[5, 3]),
        *_beyond_marks(points, domain, y_domain),
    ]
    # Two lines, short enough to stay right of the rule at 1.
    words = share_words(row).replace(" [", "\n[")
    text = alt.Chart(alt.Data(values=[{"words": f"above 1: {words}"}])).encode(
        x=alt.value(width - 2), y=alt.value(9), text="words:N"
    )
    layers += haloed(text, align="right", **LINES)
    panel = alt.LayerChart(layer=layers).properties(width=width, height=96)
    return panel if title is None else panel.properties(title=title)


def _beyond_marks(points: pl.DataFrame, domain: Limits, y_domain: Limits) -> list[alt.Chart]:
    """A triangle at each edge beyond which tokens lie, and how many."""
    marks: list[alt.Chart] = []
    for edge, place, align in ((LEFT, domain[0], "left"), (RIGHT, domain[1], "right")):
        count = points.filter(pl.col("edge") == edge).height
        if not count:
            continue
        row = {"place": place, "share": y_domain[1] / 9, "words": f"{count:,} beyond"}
        mark = alt.Chart(alt.Data(values=[row])).encode(x="place:Q", y="share:Q")
        shape = "triangle-left" if edge == LEFT else "triangle-right"
        marks.append(mark.mark_point(filled=True, shape=shape, size=50, opacity=1, color=GREY))
        shift = 7 if align == "left" else -7
        words = haloed(mark, align=align, dx=shift)
        marks += [word.encode(text="words:N") for word in words]
    return marks
