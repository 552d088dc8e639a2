"""Figures on iterative inference, E11a and E11b: pure functions from tables to a chart.

Do heads write less where the residual stream already holds what they would write? Either their own
output is fed back to them, or the next layer reads a layer's input once more.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from ..errors import InputError
from .plotting import (
    COLOURS,
    MOST_BARS,
    Limits,
    Span,
    across_rule,
    axis_limits,
    axis_notes,
    axis_scale,
    chart_of,
    cloud,
    count_of,
    counted_sample,
    crowded_panels,
    density_note,
    diagonal,
    edge_shape,
    finish,
    interval_bars,
    interval_tip,
    layer_axis,
    layer_bands,
    layer_colour,
    level_rule,
    listed,
    logits_tip,
    n_cut,
    n_outside,
    placed,
    placed_on_both,
    plain_tip,
    point_marks,
    side_by_side,
    summary_rows,
    table_rows,
    with_intervals,
)

REPRESSION_COLUMNS = (
    *("model", "layer", "head", "kind", "scaling", "slope", "slope_low", "slope_high"),
    *("n_tokens", "n_prompts"),
)
REFEEDING_COLUMNS = (
    *("model", "layer", "head", "next_head", "refeed_change", "ablation_change"),
    *("n_tokens", "n_prompts"),
)
KINDS = {
    "own": ("its own output", COLOURS[1]),
    "random": ("a random direction", COLOURS[7]),
    "other": ("another head's output", COLOURS[0]),
}


def self_repression(table: pl.DataFrame) -> alt.VConcatChart:
    """E11a: how a head's direct effect answers to its own output in its layer's input (slope).

    One model, nothing ablated, a panel per scaling of the added vector. A point is a head, by layer
    and in order within it; a line joins the means of a layer's heads. 1: unchanged, below 1: the
    head represses itself.

    Raises:
        InputError: more than one model, a missing column, or no rows.
    """
    rows, missing = _repression_rows(table)
    means = kind_means(rows)
    domain = axis_limits(
        with_intervals(rows, "slope"), include=[1.0, *means["slope"]], required=rows["slope"]
    )
    points = placed(rows, "slope", domain)
    shape = edge_shape(points)
    scalings = rows["scaling"].unique().sort().to_list()
    bars = _bars_fit(rows)
    panels = [
        _repression_panel(
            points.filter(scaling=scaling),
            means.filter(scaling=scaling),
            domain=domain,
            shape=shape,
            bars=bars,
            last=scaling == scalings[-1],
        )
        for scaling in scalings
    ]
    subtitle = [
        f"{rows['model'][0]}, nothing ablated, each head's top 2 % of tokens: {counted_sample(rows)}",
        "Point: head, in order within its layer"
        f"{', bar: 95 % interval' if bars else ''}; line: layer mean; at 1 the head is unchanged",
        *axis_notes(
            outside=n_outside(points),
            drawn=points.height,
            missing=missing,
            cut=n_cut(points, "slope", domain) if bars else 0,
        ),
    ]
    return finish(alt.vconcat(*panels, spacing=14), "Heads fed with their own output", subtitle)


def refeeding(table: pl.DataFrame, summaries: pl.DataFrame) -> alt.HConcatChart:
    """E11b: change of a head when it reads an earlier input, against its change under ablation.

    One model, resample ablation, both in logits. Left: a point per head of layer l and head of
    layer l+1; right: the correlation of the two changes for each pair of layers.

    Raises:
        InputError: more than one model, a missing column, or no rows or no pooled correlation.
    """
    rows, pooled, pairs, missing = _refeeding_rows(table, summaries)
    columns = ("refeed_change", "ablation_change")
    domains: dict[str, Any] = {
        "x_domain": axis_limits(rows[columns[0]]),
        "y_domain": axis_limits(rows[columns[1]]),
    }
    points = placed_on_both(rows, *columns, **domains)
    last_layer = count_of(rows, "layer") - 1
    panels: list[alt.LayerChart] = [_refeeding_panel(points, **domains, last_layer=last_layer)]
    if pairs.height:
        panels.append(_pairs_panel(pairs, pooled, n_layers=last_layer + 1))
    subtitle = [
        f"{rows['model'][0]}, resample ablation, each head's top 2 % of tokens:"
        f" {counted_sample(rows)}",
        f"Correlation of the two, over tokens and pairs of heads: {_correlation_words(pooled)}; dashed: y = x",
        *density_note(points),
        *axis_notes(outside=n_outside(points), drawn=points.height, missing=missing),
    ]
    empty = pairs["value"].null_count()
    if empty:
        subtitle.append(f"Pairs of layers without a correlation, not drawn: {empty:,}")
    chart = alt.hconcat(*panels, spacing=30)
    return finish(chart, "Reading an earlier input against losing a head", subtitle)


def kind_means(rows: pl.DataFrame) -> pl.DataFrame:
    """Unweighted mean slope of a layer's heads, per scaling and kind of vector."""
    groups = rows.group_by("scaling", "kind", "kind_name", "layer", maintain_order=True)
    return groups.agg(pl.col("slope").mean()).sort("scaling", "kind", "layer")


# Captions


def caption_e11a(table: pl.DataFrame) -> str:
    rows, _ = _repression_rows(table)
    scalings = [f"{scaling:g}" for scaling in rows["scaling"].unique().sort()]
    heads = rows.select("layer", "head").n_unique()
    return (
        f"Do the heads of {rows['model'][0]} write less where their output is already there?"
        f" Nothing is ablated: for {heads:,} heads, on each head's top tokens (the 2 % with its"
        f" largest direct effect; {counted_sample(rows)}), {listed(scalings)} times a vector is"
        " added to the input of the head's layer at that position, and the slope of the new direct"
        " effect against the old one is drawn: 1 if the head does not react, below 1 if it writes"
        " less of the same. The vector is the head's own output, or as controls a random direction"
        " or another head's output of the same norm. Where the head's own output lowers the slope"
        " further than the controls do, the head represses itself; lines are means over a layer's"
        " heads."
    )


def caption_e11b(table: pl.DataFrame, summaries: pl.DataFrame) -> str:
    rows, pooled, pairs, _ = _refeeding_rows(table, summaries)
    crowded = crowded_panels(rows).any()
    right = ", and per pair of layers on the right" if pairs.height else ""
    mark = "The darker a cell, the more pairs" if crowded else "A point is a pair"
    return (
        f"{mark} of a head in one layer of {rows['model'][0]} and a head in the next"
        f" ({rows.height:,} pairs), on the first head's top tokens (the 2 % with its largest direct"
        f" effect; {counted_sample(rows)}). Across: by how much the second head's direct effect on"
        " the logit of the token to predict changes when its layer reads the first head's layer's"
        " input again, so that it misses all that this layer wrote; up: by how much it changes when"
        " only the first head is ablated (resample ablation). If heads make up for a lost head"
        " because they refine whatever the stream still lacks, both changes go together: over"
        f" tokens and pairs of heads, their correlation is {_correlation_words(pooled)}{right}."
    )


# E11a


def _repression_rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    rows, missing = table_rows(
        "E11a", table, "self_repression", columns=REPRESSION_COLUMNS, finite=["slope"]
    )
    unknown = sorted(set(rows["kind"]) - set(KINDS))
    if unknown:
        raise InputError(
            f"E11a: the self_repression table has kind {', '.join(unknown)};"
            f" allowed are {', '.join(KINDS)}"
        )
    names = {kind: name for kind, (name, _) in KINDS.items()}
    rows = rows.with_columns(
        kind_name=pl.col("kind").replace_strict(names, return_dtype=pl.String),
        place_x=side_by_side(count_of(rows, "head")),
    )
    return rows.sort("scaling", "kind", "layer", "head"), missing


def _bars_fit(rows: pl.DataFrame) -> bool:
    return int(rows.group_by("scaling").len()["len"].max()) <= MOST_BARS  # type: ignore[arg-type]


def _kind_colour() -> alt.Color:
    names, inks = zip(*KINDS.values(), strict=True)
    legend = alt.Legend(symbolType="circle", symbolOpacity=1, symbolSize=70)
    scale = alt.Scale(domain=list(names), range=list(inks))
    return alt.Color("kind_name:N", title="Added vector", scale=scale, legend=legend)


def _repression_panel(
    points: pl.DataFrame,
    means: pl.DataFrame,
    *,
    domain: Limits,
    shape: alt.Shape,
    bars: bool,
    last: bool,
) -> alt.LayerChart:
    first, n_layers = int(points["layer"].min()), count_of(points, "layer")  # type: ignore[arg-type]
    x = layer_axis(n_layers, labels=last, first=first)
    y = Span("slope", "Slope, new / old effect", domain)
    colour = _kind_colour()
    tooltip = [
        plain_tip("layer", "Layer", "d"),
        plain_tip("head", "Head", "d"),
        alt.Tooltip(field="kind_name", type="nominal", title="Added vector"),
        plain_tip("n_tokens", "Tokens"),
        *interval_tip("slope", "Slope", unit="of 1"),
    ]
    layers = [layer_bands(n_layers, first=first), level_rule(1.0)]
    if bars:
        whiskers = chart_of(interval_bars(points, "slope", domain)).mark_rule(strokeOpacity=0.35)
        layers.append(whiskers.encode(x=x, y=y.up("slope_low"), y2="slope_high", color=colour))
    dots = point_marks(points).encode(x=x, y=y.up(), color=colour, shape=shape, tooltip=tooltip)
    line = chart_of(means.rename({"layer": "place_x"})).mark_line(strokeWidth=2.2)
    layers += [dots, line.encode(x=x, y=y.up("slope"), color=colour)]
    title = f"{points['scaling'][0]:g} × the vector"
    return alt.LayerChart(layer=layers).properties(width=680, height=150, title=title)


# E11b


def _refeeding_rows(
    table: pl.DataFrame, summaries: pl.DataFrame
) -> tuple[pl.DataFrame, dict[str, Any], pl.DataFrame, int]:
    """The pairs of heads, their pooled correlation, that per pair of layers, and what is missing."""
    finite = ["refeed_change", "ablation_change"]
    rows, missing = table_rows("E11b", table, "refeeding", columns=REFEEDING_COLUMNS, finite=finite)
    wanted = summary_rows(
        "E11b", summaries, rows["model"][0], experiment="E11", quantity="change_correlation"
    ).filter(group="top")
    pooled = wanted.filter(pl.col("layer").is_null()).to_dicts()
    if not pooled:
        raise InputError(
            "E11b: the summaries table has no change_correlation of all layers (layer null);"
            " write both tables in one run of the experiment"
        )
    return rows, pooled[0], wanted.drop_nulls("layer").sort("layer"), missing


def _correlation_words(row: dict[str, Any]) -> str:
    value, low, high = (row[name] for name in ("value", "low", "high"))
    if value is None:
        return "not estimated"
    return f"{value:.2f}" + ("" if None in (low, high) else f" [{low:.2f}, {high:.2f}]")


def _refeeding_panel(
    points: pl.DataFrame, *, x_domain: Limits, y_domain: Limits, last_layer: int
) -> alt.LayerChart:
    x = Span("refeed_change", "Change when it reads the earlier input (logits)", x_domain)
    y = Span("ablation_change", "Change when the earlier head is ablated (logits)", y_domain)
    tooltip = [
        plain_tip("layer", "Layer", "d"),
        plain_tip("head", "Ablated head", "d"),
        plain_tip("next_head", "Head of the next layer", "d"),
        logits_tip("refeed_change", "Change, earlier input"),
        logits_tip("ablation_change", "Change, ablation"),
        plain_tip("n_tokens", "Tokens"),
    ]
    dots = cloud(
        points,
        x=x,
        y=y,
        colour=layer_colour(last_layer),
        shape=edge_shape(points, title="Pair"),
        tooltip=tooltip,
        things="Pairs",
    )
    rules = [level_rule(0.0), across_rule(0.0)]
    panel = alt.LayerChart(layer=[*rules, *dots, diagonal(x_domain, y_domain)])
    return panel.properties(width=380, height=380, title="Heads of the next layer")


def _pairs_panel(pairs: pl.DataFrame, pooled: dict[str, Any], *, n_layers: int) -> alt.LayerChart:
    rows = pairs.drop_nulls("value").with_columns(place_x=pl.col("layer"))
    x = layer_axis(n_layers, labels=True, title="Layer of the ablated head")
    y = alt.Y("value:Q", title="Correlation (no unit)", scale=axis_scale((-1.05, 1.05)))
    low = y.copy()
    low.shorthand = "low:Q"
    colour = layer_colour(n_layers - 1)
    bars = chart_of(rows.drop_nulls(["low", "high"])).mark_rule(strokeOpacity=0.6)
    dots = chart_of(rows).mark_point(filled=True, size=40, opacity=1)
    tooltip = [
        plain_tip("layer", "Layer", "d"),
        plain_tip("value", "Correlation", ".2f"),
        plain_tip("low", "95 % low", ".2f"),
        plain_tip("high", "95 % high", ".2f"),
    ]
    layers = [
        level_rule(0.0),
        bars.encode(x=x, y=low, y2="high:Q", color=colour),
        dots.encode(x=x, y=y, color=colour, tooltip=tooltip),
    ]
    if pooled["value"] is not None:
        level = alt.Chart(alt.Data(values=[{"level": pooled["value"]}]))
        layers.append(level.mark_rule(color="black", strokeDash=[2, 3]).encode(y="level:Q"))
    title = "Correlation per pair of layers; dotted: all"
    return alt.LayerChart(layer=layers).properties(width=300, height=380, title=title)
