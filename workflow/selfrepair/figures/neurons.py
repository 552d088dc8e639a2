"""Figures of the MLP neurons that make up for a chosen head, E7 to E10: tables to a chart.

A neuron's direct effect is its part of its MLP's, in logits; its self-repair is by how much that
rises when the head is ablated (resample). An instance is one top token of one head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from .plotting import (
    COLOURS,
    GREY,
    LINE,
    LINES,
    MOST_POINTS,
    TOKEN_TIP,
    Limits,
    Span,
    across_rule,
    axis_limits,
    axis_notes,
    axis_scale,
    chart_of,
    cloud,
    counted_sample,
    crowded_panels,
    density_note,
    diagonal,
    diverging_colour,
    drawn_singly,
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
    models_of,
    n_outside,
    named_heads,
    panel_grid,
    percent_axis,
    placed_on_both,
    plain_tip,
    share_words,
    summary_rows,
    table_rows,
    title_of,
    titled,
    tokens_per_head,
    words_at,
)

PANEL = ("layer", "head", "mlp_layer")
HEAD_KEYS = ("model", *PANEL)
RANK_COLUMNS = (*HEAD_KEYS, "rank", "threshold", "share", "low", "high", "n_tokens", "n_prompts")
CURVE_COLUMNS = (
    *(*HEAD_KEYS, "rank_end", "n_neurons", "cumulative_share", "median_direct_effect"),
    *("n_tokens", "n_prompts"),
)
TOP_COLUMNS = (
    *(*HEAD_KEYS, "prompt", "position", "neuron"),
    *("direct_effect", "ablated_direct_effect", "mlp_direct_effect", "region"),
)
COUNT_COLUMNS = (*HEAD_KEYS, "neuron", "instances", "prompts", "n_tokens", "n_prompts")
REGIONS = ("erases more", "erases less", "erasure reversed", "adds more or less")
FIRST_NEURONS = 0.01
TOP = 10
SIDE = 280


# The figures


def neuron_ranks(table: pl.DataFrame) -> alt.ConcatChart:
    """E7: in what share of instances the N-th most repairing neuron repairs at least so much.

    One model, resample ablation, a panel per chosen head (and MLP); a line per threshold, a share
    of the head's direct effect, in a band of its 95 % interval.

    Raises:
        InputError: more than one model, a missing column, or no rows.
    """
    rows, missing = table_rows(
        "E7", table, "neuron_ranks", columns=RANK_COLUMNS, finite=["share", "threshold"]
    )
    rows = rows.sort(*HEAD_KEYS, "threshold", "rank", descending=[False] * 4 + [True, False])
    rows = rows.with_columns(level=_level(pl.col("threshold")))
    highest = pl.concat([rows["share"], rows["high"].drop_nulls().rename("share")]).max()
    limits = (0.0, min(1.02, 1.06 * float(highest) or 1.0))  # type: ignore[arg-type]
    panels = [
        _rank_panel(part, title, limits=limits, levels=_levels(rows), first=first)
        for part, title, first in _panels(rows, "mlp_layer")
    ]
    subtitle = [
        f"{_opening(rows)}: {counted_sample(rows)}",
        "Line: the neuron of this rank repairs at least so much of the head's direct effect;"
        " band: 95 % interval",
        *axis_notes(outside=0, drawn=rows.height, missing=missing),
    ]
    return finish(panel_grid(panels), "How much single neurons repair", subtitle)


def neuron_curve(table: pl.DataFrame) -> alt.ConcatChart:
    """E8: how the change of the neurons' direct effects is spread, most repairing neuron first.

    One model, resample ablation, a panel per chosen head (and MLP). Across: the share of neurons
    counted so far; up: their share of the summed absolute change. Points are groups of neurons,
    coloured by their median clean direct effect: negative ones erase.

    Raises:
        InputError: more than one model, a missing column, or no rows.
    """
    rows, missing = _curve_rows(table)
    colour, beyond = diverging_colour(
        "median_direct_effect",
        ["Median direct effect,", "clean (logits)"],
        rows["median_direct_effect"],
    )
    panels = [
        _curve_panel(part, title, colour=colour, first=first)
        for part, title, first in _panels(rows, "mlp_layer")
    ]
    subtitle = [
        f"{_opening(rows)}: {counted_sample(rows)}",
        "Neurons in order of repair, most repairing first; dotted: equal change of all neurons",
        *_colour_note(rows, "median_direct_effect", beyond),
        *axis_notes(outside=0, drawn=rows.height, missing=missing),
    ]
    return finish(panel_grid(panels), "How repair is spread over neurons", subtitle)


def top_neuron_effects(top_neurons: pl.DataFrame, summaries: pl.DataFrame) -> alt.ConcatChart:
    """E9: direct effect of each instance's most repairing neuron, clean against ablated (logits).

    One model, resample ablation, a panel per chosen head (and MLP), axes of one scale; colour is
    the clean direct effect of the neuron's whole MLP.

    Raises:
        InputError: more than one model, a missing column, or no rows or shares for the model.
    """
    rows, missing = _top_rows(top_neurons)
    shares = _erasure_shares(rows, summaries)
    columns = ("direct_effect", "ablated_direct_effect")
    both = pl.concat([rows[name].cast(pl.Float64).rename("value") for name in columns])
    domain = axis_limits(both, reach=0.5)
    points = placed_on_both(rows, *columns, x_domain=domain, y_domain=domain)
    shape = edge_shape(points, title="Instance")
    colour, beyond = diverging_colour(
        "mlp_direct_effect",
        ["MLP's direct effect,", "clean (logits)"],
        drawn_singly(points, *PANEL)["mlp_direct_effect"],
    )
    panels = [
        _top_panel(part, title, shares, domain=domain, colour=colour, shape=shape, first=first)
        for part, title, first in _panels(points, "mlp_layer")
    ]
    subtitle = [
        f"{_opening(rows)}: {tokens_per_head(rows, 'mlp_layer')}",
        "Point: the instance's most repairing neuron; dashed: no change; in each region its share",
        *density_note(points, *PANEL),
        *_colour_note(drawn_singly(points, *PANEL), "mlp_direct_effect", beyond),
        *axis_notes(outside=n_outside(points), drawn=points.height, missing=missing),
    ]
    return finish(panel_grid(panels), "What the most repairing neurons do", subtitle)


def neuron_counts(table: pl.DataFrame) -> alt.ConcatChart:
    """E10: in what share of instances each neuron is among the ten most repairing.

    One model, resample ablation, a panel per chosen head (and MLP), neurons from the most to the
    least frequent, on a log axis. Dotted: if the ten were always the same.

    Raises:
        InputError: more than one model, a missing column, or no rows.
    """
    rows, missing = _count_rows(table)
    last = int(rows["rank"].max())  # type: ignore[arg-type]
    panels = [
        _count_panel(part, title, last=last, first=first)
        for part, title, first in _panels(rows, "mlp_layer")
    ]
    different = rows.select("mlp_layer", "neuron").n_unique()
    subtitle = [
        f"{_opening(rows)}: {counted_sample(rows)}",
        f"Different neurons among the top {TOP} of at least one instance: {different:,};"
        f" dotted: if they were always the same {TOP}",
        *axis_notes(outside=0, drawn=rows.height, missing=missing),
    ]
    return finish(panel_grid(panels), "How often the same neurons repair", subtitle)


# Captions


def caption_e7(table: pl.DataFrame) -> str:
    rows, _ = table_rows(
        "E7", table, "neuron_ranks", columns=RANK_COLUMNS, finite=["share", "threshold"]
    )
    return (
        f"For {_caption_sample(rows)}, the neurons of {_mlps(rows)} are ranked on each token by how"
        " much their direct effect on the logit of the token to predict rises when the head is"
        " ablated (their repair). A line tells in what share of the tokens the neuron of rank N"
        " (across) repairs at least the given share of the head's direct effect; bands are 95 %"
        " bootstrap intervals over prompts. Lines that fall steeply mean that a few neurons carry"
        " most of what the MLP repairs."
    )


def caption_e8(table: pl.DataFrame) -> str:
    rows, _ = _curve_rows(table)
    return (
        f"For {_caption_sample(rows)}, the neurons of {_mlps(rows)} are sorted on each token from"
        " the most repairing, whose direct effect on the logit rises most when the head is ablated,"
        " to the one whose effect falls most. The line is the share of the summed absolute change"
        " that the neurons so far account for, a mean over the tokens; it rises along the dotted"
        " line if all neurons change equally, and steeply at either end if few do, and the dashed"
        " rule stands after the first 1 % of the neurons. Colours give the median direct effect"
        " that the neurons of a group have before the ablation: the negative ones erase, they"
        " lower the logit."
    )


def caption_e9(top_neurons: pl.DataFrame, summaries: pl.DataFrame) -> str:
    rows, _ = _top_rows(top_neurons)
    _erasure_shares(rows, summaries)
    crowded = crowded_panels(rows, *PANEL).any()
    mark = "The darker a cell, the more instances" if crowded else "A point is one instance"
    heads = named_heads(heads_in(rows))
    return (
        f"{mark}: the neuron of {_mlps(rows)} of {rows['model'][0]} that repairs most on one token"
        f" when a head is ablated by resampling, for {heads} on each head's top tokens (the 2 %"
        f" with its largest direct effect): {tokens_per_head(rows, 'mlp_layer')}. Across: the"
        " neuron's direct effect on the logit of the token to predict, up: the same once the head is"
        " ablated; on the dashed line nothing changes. Left of zero the neuron lowers the logit (it erases)"
        " and above the dashed line it does so less: this is anti-erasure, whose share of tokens is"
        " printed with its 95 % bootstrap interval over prompts; above zero it even raises the"
        " logit instead. Colour: the direct effect of the whole MLP before the ablation."
    )


def caption_e10(table: pl.DataFrame) -> str:
    rows, _ = _count_rows(table)
    different = rows.select("mlp_layer", "neuron").n_unique()
    return (
        f"For {_caption_sample(rows)}, the ten neurons of {_mlps(rows)} that repair most are noted"
        f" on each token; {different:,} different neurons occur. The line gives the share of tokens"
        " in which a neuron is one of the ten, from the most frequent neuron (named) to the least,"
        " on a logarithmic axis. If the same ten always did the repair it would follow the dotted"
        " line, at 100 % up to rank 10 and zero beyond: the flatter and longer it is, the more the"
        " repairing neurons differ between prompts."
    )


def _caption_sample(rows: pl.DataFrame) -> str:
    heads = named_heads(heads_in(rows))
    return (
        f"{heads} of {rows['model'][0]} under resample ablation, on each head's top tokens (the 2 %"
        f" with its largest direct effect; {counted_sample(rows)})"
    )


# Rows


def _panels(rows: pl.DataFrame, *keys: str) -> list[tuple[pl.DataFrame, str, bool]]:
    """Each panel's rows and title, and whether it is the first of its line of panels."""
    heads = heads_in(rows, *keys)
    several = "mlp_layer" in keys and rows["mlp_layer"].n_unique() > 1
    return [
        (rows.filter(**head), title_of(head, several_mlps=several), first_in_row(index, len(heads)))
        for index, head in enumerate(heads)
    ]


def _mlps(rows: pl.DataFrame) -> str:
    layers = [str(layer) for layer in rows["mlp_layer"].unique().sort()]
    return (
        f"the MLP of layer {layers[0]}"
        if len(layers) == 1
        else f"the MLPs of layers {listed(layers)}"
    )


def _opening(rows: pl.DataFrame) -> str:
    return (
        f"{models_of(rows)[0]}, resample ablation, neurons of {_mlps(rows)}; each head's top 2 %"
        " of tokens"
    )


def _colour_note(rows: pl.DataFrame, column: str, beyond: int) -> list[str]:
    notes = []
    if beyond:
        notes.append(f"Beyond the colours' scale, in its last colour: {beyond:,} points")
    unknown = rows[column].null_count()
    if unknown:
        notes.append(f"Points without a value for their colour: {unknown:,}")
    return notes


def _curve_rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    finite = ["cumulative_share", "rank_end", "n_neurons"]
    rows, missing = table_rows("E8", table, "neuron_curve", columns=CURVE_COLUMNS, finite=finite)
    rows = rows.with_columns(neurons=pl.col("rank_end") / pl.col("n_neurons"))
    return rows.sort(*HEAD_KEYS, "rank_end"), missing


def _top_rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    finite = ["direct_effect", "ablated_direct_effect"]
    return table_rows("E9", table, "top_neurons", columns=TOP_COLUMNS, finite=finite)


def _erasure_shares(rows: pl.DataFrame, summaries: pl.DataFrame) -> pl.DataFrame:
    return summary_rows(
        "E9", summaries, rows["model"][0], experiment="E9", quantity="anti_erasure_share"
    )


def _count_rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    rows, missing = table_rows(
        "E10", table, "neuron_counts", columns=COUNT_COLUMNS, finite=["instances", "n_tokens"]
    )
    rows = rows.with_columns(share=pl.col("instances") / pl.col("n_tokens"))
    keys = list(HEAD_KEYS)
    rows = rows.sort(*keys, "share", "neuron", descending=[False] * 4 + [True, False])
    return rows.with_columns(rank=pl.int_range(1, pl.len() + 1).over(keys)), missing


# E7


def _level(threshold: pl.Expr) -> pl.Expr:
    return threshold.map_elements(lambda value: f"{100 * value:.3g} %", return_dtype=pl.String)


def _levels(rows: pl.DataFrame) -> list[str]:
    return rows.sort("threshold", descending=True)["level"].unique(maintain_order=True).to_list()


def _rank_panel(
    rows: pl.DataFrame, title: str, *, limits: Limits, levels: Sequence[str], first: bool
) -> alt.LayerChart:
    last = int(rows["rank"].max())  # type: ignore[arg-type]
    ticks = [1, *range(5, last + 1, 5)] if last > 5 else list(range(1, last + 1))
    x = alt.X(
        "rank:Q",
        title="Rank of the neuron, most repairing first",
        scale=axis_scale((0.5, last + 0.5)),
        axis=alt.Axis(values=ticks, format="d", grid=False),
    )
    words = "Share of instances (%)" if first else None
    y = alt.Y("share:Q", title=words, scale=axis_scale(limits), axis=percent_axis())
    scale = alt.Scale(domain=list(levels), scheme=alt.SchemeParams("viridis", extent=[0, 0.85]))
    legend = alt.Legend(symbolType="circle", symbolSize=70, symbolOpacity=1)
    colour = alt.Color("level:O", title=["Repairs at", "least"], scale=scale, legend=legend)
    low = y.copy()
    low.shorthand = "low:Q"
    chart = chart_of(rows)
    band = chart_of(rows.drop_nulls(["low", "high"])).mark_area(opacity=0.18)
    line = chart.mark_line(strokeWidth=1.8, point=alt.OverlayMarkDef(size=18))
    tooltip = [
        plain_tip("rank", "Rank", "d"),
        alt.Tooltip(field="level", type="nominal", title="Repairs at least"),
        plain_tip("share", "Share", ".1%"),
        plain_tip("low", "95 % low", ".1%"),
        plain_tip("high", "95 % high", ".1%"),
    ]
    layers = [
        band.encode(x=x, y=low, y2="high:Q", color=colour),
        line.encode(x=x, y=y, color=colour, tooltip=tooltip),
    ]
    return alt.LayerChart(layer=layers).properties(width=SIDE, height=200, title=title)


# E8


def share_of_first(rows: pl.DataFrame, neurons: float) -> float:
    """The curve at this share of the neurons, on a straight line between its points and 0."""
    across = [0.0, *rows["neurons"]]
    return float(np.interp(neurons, across, [0.0, *rows["cumulative_share"]]))


def _curve_panel(
    rows: pl.DataFrame, title: str, *, colour: alt.Color, first: bool
) -> alt.LayerChart:
    limits = (-0.02, 1.02)
    x = alt.X(
        "neurons:Q",
        title="Neurons, most repairing first (%)",
        scale=axis_scale(limits),
        axis=percent_axis(),
    )
    words = "Share of the absolute change (%)" if first else None
    y = alt.Y("cumulative_share:Q", title=words, scale=axis_scale(limits), axis=percent_axis())
    tooltip = [
        plain_tip("rank_end", "Neurons so far"),
        plain_tip("neurons", "Of all", ".2%"),
        plain_tip("cumulative_share", "Share of the change", ".1%"),
        logits_tip("median_direct_effect"),
    ]
    chart = chart_of(rows)
    points = chart.mark_point(filled=True, size=42, opacity=1, stroke=GREY, strokeWidth=0.6)
    ends = [{"x": 0.0, "y": 0.0}, {"x": 1.0, "y": 1.0}]
    # The line starts where no neuron is counted yet.
    curve = pl.DataFrame({"x": [0.0, *rows["neurons"]], "y": [0.0, *rows["cumulative_share"]]})
    layers = [
        line_marks(ends, color=GREY, strokeDash=[2, 3]),
        line_marks(curve.to_dicts(), color=GREY),
        points.encode(x=x, y=y, color=colour, tooltip=tooltip),
        *_first_marks(rows, limits),
    ]
    note = f"{int(rows['n_neurons'][0]):,} neurons"
    return titled(alt.LayerChart(layer=layers), title, note, side=SIDE)


def _first_marks(rows: pl.DataFrame, limits: Limits) -> list[alt.Chart]:
    """A rule after the first 1 % of the neurons, if that is a neuron at all, and their share."""
    if rows["n_neurons"][0] * FIRST_NEURONS < 1:
        return []
    words = f"first 1 %: {100 * share_of_first(rows, FIRST_NEURONS):.0f} % of the change"
    corner = words_at(words, (0.98, 0.04), (limits, limits))
    rule = across_rule(FIRST_NEURONS, color="black", strokeDash=[5, 3])
    return [rule, *haloed(corner, align="right")]


# E9


def _top_panel(
    points: pl.DataFrame,
    title: str,
    shares: pl.DataFrame,
    *,
    domain: Limits,
    colour: alt.Color,
    shape: alt.Shape,
    first: bool,
) -> alt.LayerChart:
    effects = ("direct_effect", "ablated_direct_effect")
    x = Span(effects[0], "Neuron's direct effect, clean (logits)", domain)
    y = Span(effects[1], "The same, head ablated (logits)" if first else None, domain)
    tooltip = [
        *TOKEN_TIP,
        plain_tip("mlp_layer", "MLP of layer", "d"),
        plain_tip("neuron", "Neuron", "d"),
        *map(logits_tip, (*effects, "mlp_direct_effect")),
        alt.Tooltip(field="region", type="nominal", title="Region"),
    ]
    dots = cloud(points, x=x, y=y, colour=colour, shape=shape, tooltip=tooltip, things="Instances")
    layer, head, mlp = (points[name][0] for name in PANEL)
    # The share of this MLP, or of the only one.
    own = shares.filter(pl.col("group").is_in(["", f"MLP {mlp}"]))
    row = estimate(own, layer=layer, head=head)
    note = f"anti-erasure: {share_words(row)} of {points.height:,} instances"
    axes = [level_rule(0.0), across_rule(0.0)]
    layers = [
        *axes,
        *dots,
        diagonal(domain, domain),
        *_region_shares(points, domain),
    ]
    return titled(alt.LayerChart(layer=layers), title, note, side=SIDE)


def _region_shares(points: pl.DataFrame, domain: Limits) -> list[alt.Chart]:
    """Each region's name and its share of the instances, in a corner of the region."""
    low, high = domain
    below = -(LINE + 9)
    places: dict[str, tuple[float, float, Any, int]] = {
        "erasure reversed": (low, high, "left", 10),
        "erases less": (low, 0.0, "left", 10),
        "erases more": (0.0, low, "right", below),
        "adds more or less": (high, low, "right", below),
    }
    marks = []
    for name, (x, y, side, down) in places.items():
        share = (points["region"] == name).sum() / points.height
        words = words_at(f"{name}\n{100 * share:.0f} %", (x, y), (domain, domain))
        marks += haloed(words, align=side, dx=4 if side == "left" else -4, dy=down, **LINES)
    return marks


# E10


def steps(rows: pl.DataFrame) -> pl.DataFrame:
    """Neurons of equal count as one step: the first and the last of each."""
    first = pl.col("share") != pl.col("share").shift(1)
    last = pl.col("share") != pl.col("share").shift(-1)
    return rows.filter(first.fill_null(True) | last.fill_null(True))


def _count_panel(rows: pl.DataFrame, title: str, *, last: int, first: bool) -> alt.LayerChart:
    edge = max(1.15 * last, 1.3 * TOP)
    scale = alt.Scale(type="log", domain=[0.9, edge], nice=False)
    ticks = [10**power for power in range(6) if 10**power <= max(last, TOP)]
    axis = alt.Axis(values=ticks, format=",d")
    x = alt.X("rank:Q", title="Neuron, most frequent first (rank)", scale=scale, axis=axis)
    words = f"Instances with it in the top {TOP} (%)" if first else None
    y = alt.Y("share:Q", title=words, scale=axis_scale((0.0, 1.04)), axis=percent_axis())
    same = pl.DataFrame({"rank": [1.0, TOP, TOP], "share": [1.0, 1.0, 0.0]})
    dotted = chart_of(same).mark_line(color=GREY, strokeDash=[2, 3], strokeWidth=1.2)
    line = chart_of(steps(rows)).mark_line(color=COLOURS[0], strokeWidth=1.6)
    layers = [dotted.encode(x=x, y=y), line.encode(x=x, y=y)]
    tooltip = [
        plain_tip("neuron", "Neuron", "d"),
        plain_tip("rank", "Rank"),
        plain_tip("instances", "Instances"),
        plain_tip("prompts", "Prompts"),
        plain_tip("share", "Share", ".1%"),
    ]
    if rows.height <= MOST_POINTS:
        dots = chart_of(rows).mark_point(filled=True, size=16, opacity=0.8, color=COLOURS[0])
        layers.append(dots.encode(x=x, y=y, tooltip=tooltip))
    panel = alt.LayerChart(layer=layers)
    return titled(panel, title, _count_notes(rows), side=SIDE).properties(height=200)


def _count_notes(rows: pl.DataFrame) -> list[str]:
    first = rows.row(0, named=True)
    return [
        f"{rows.height:,} different neurons; most frequent: neuron {first['neuron']},",
        f"in {first['instances']:,} of {first['n_tokens']:,} instances, {first['prompts']:,} of"
        f" {first['n_prompts']:,} prompts",
    ]
