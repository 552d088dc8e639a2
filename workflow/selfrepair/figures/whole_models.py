"""Figures of whole models, E1, E2, E5, E6 and E12: pure functions from a table to an altair chart.

No model, no torch, no paths. The `heads` table has one row per (model, ablation, selection, layer,
head), `depth` one per quarter of the layers; effects are in logits, means over the row's tokens.
"Paper" is Rushing & Nanda, "Explorations of Self-Repair in Language Models" (ICML 2024).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt
import polars as pl

from ..errors import InputError
from .plotting import (
    COLOURS,
    GREY,
    HEAD_TIP,
    INSIDE,
    NEGATIVE,
    Limits,
    amount,
    axis_limits,
    axis_notes,
    axis_scale,
    bars_fit,
    chart_of,
    check_columns,
    count_of,
    edge_shape,
    finish,
    haloed,
    interval_bars,
    interval_tip,
    layer_axis,
    layer_bands,
    layer_colour,
    level_rule,
    listed,
    logits_tip,
    models_of,
    n_cut,
    n_outside,
    percent_axis,
    placed,
    placed_on_both,
    plain_tip,
    point_marks,
    side_by_side,
    with_intervals,
)

ABLATIONS = ("resample", "mean", "zero")
PAPER_NORM_SHARE = 0.3
# Beyond these bounds a share of the direct effect says only that the direct effect is near zero.
SHARE_BOUNDS = (-0.5, 1.25)

KEYS = ("model", "ablation", "selection", "layer", "head", "n_tokens", "n_prompts")
EFFECTS = {
    "direct_effect": (["Direct effect", "(logits)"], "#000000"),
    "ablated_direct_effect": (["Direct effect,", "ablated (logits)"], GREY),
    "from_heads": (["From heads", "(logits)"], COLOURS[0]),
    "from_mlps": (["From MLPs", "(logits)"], COLOURS[3]),
    "from_norm": (["From norm", "(logits)"], COLOURS[2]),
}
SELECTIONS = {
    "top": "Top tokens (2 % with the largest direct effect)",
    "all": "All tokens",
}
DEFINITIONS = {
    "from_norm_share": "ratio of sums",
    "from_norm_share_clipped": "paper: mean of clipped shares",
}
BREAKDOWN = {
    "from_heads_share": ("other heads", COLOURS[0]),
    "from_mlps_share": ("MLPs", COLOURS[3]),
    "from_norm_share": ("final norm", COLOURS[2]),
    "self_repair_share": ("all self-repair", "#000000"),
}
TOTAL = "all self-repair"
QUARTERS = ("first quarter", "second quarter", "third quarter", "last quarter")
DEPTH_TITLE = "Relative depth (layer / last layer)"


# The figures


def self_repair_by_depth(heads: pl.DataFrame) -> alt.LayerChart:
    """E1: self-repair (logits) of each head on its top tokens against relative depth.

    Resample ablation, all models of the table. A point is a head, a line joins a model's layer
    means (unweighted over the heads that have a value).

    Raises:
        InputError: a column is missing, or the table has no such rows.
    """
    rows, missing = _rows("E1", heads)
    means = layer_means(rows, "self_repair")
    domain = axis_limits(rows["self_repair"], include=[0.0, *means["self_repair"]])
    points = placed(rows, "self_repair", domain)
    colour = _model_colour(models_of(rows))
    tooltip = [*HEAD_TIP, *interval_tip("self_repair", "Self-repair"), logits_tip("direct_effect")]
    title = "Self-repair (logits)"
    dots = point_marks(points).encode(
        x=_depth_axis(),
        y=alt.Y("self_repair_drawn:Q", title=title, scale=axis_scale(domain)),
        color=colour,
        shape=edge_shape(points),
        tooltip=tooltip,
    )
    lines = (
        chart_of(means)
        .mark_line(strokeWidth=2.5)
        .encode(
            x=_depth_axis(),
            y=alt.Y("self_repair:Q", title=title, scale=axis_scale(domain)),
            color=colour,
        )
    )
    chart = alt.LayerChart(layer=[level_rule(0.0), dots, lines]).properties(width=620, height=360)
    subtitle = ["Resample ablation, each head's top 2 % of tokens; point: head, line: layer mean"]
    subtitle += axis_notes(outside=n_outside(points), drawn=points.height, missing=missing)
    return finish(chart, "Self-repair by depth", subtitle)


def effect_against_change(heads: pl.DataFrame) -> alt.HConcatChart:
    """E2: each head's direct effect against the logit's change when it is ablated (both logits).

    One model, top tokens, one panel per ablation in the table. On y = -x the logit falls by exactly
    the direct effect. Bars are 95 % bootstrap intervals over prompts, left out where there are
    too many heads to tell them apart.

    Raises:
        InputError: more than one model, a column is missing, or the table has no such rows.
    """
    columns = ("direct_effect", "delta_logit")
    rows, missing = _rows("E2", heads, columns=columns, ablations=None, one_model=True)
    present = [name for name in ABLATIONS if name in set(rows["ablation"])]
    x_domain = axis_limits(rows["direct_effect"])
    y_domain = axis_limits(with_intervals(rows, "delta_logit"), required=rows["delta_logit"])
    points = placed_on_both(rows, x_domain=x_domain, y_domain=y_domain)
    panels = [
        _effect_panel(
            points.filter(pl.col("ablation") == name),
            name,
            x_domain=x_domain,
            y_domain=y_domain,
            last_layer=count_of(heads, "layer") - 1,
            shape=edge_shape(points),
            first=name == present[0],
            side=320 if len(present) > 1 else 420,
        )
        for name in present
    ]
    chart = alt.hconcat(*panels, spacing=24)
    model = rows["model"][0]
    bars = bars_fit(points, "ablation")
    subtitle = [f"{model}, each head's top 2 % of tokens; point: head"]
    subtitle[0] += ", bar: 95 % interval" if bars else ""
    cut = n_cut(points, "delta_logit", y_domain) if bars else 0
    subtitle += axis_notes(outside=n_outside(points), drawn=points.height, missing=missing, cut=cut)
    return finish(chart, "Change of the logit against direct effect", subtitle)


def norm_share_by_depth(heads: pl.DataFrame) -> alt.HConcatChart:
    """E5: the final norm's part of self-repair as a share of the direct effect, against depth.

    Resample ablation, all models; one panel for top tokens, one for all tokens. Solid line:
    `layer_norm_share`, a ratio of sums. Dashed: the paper's share, the layer's mean of
    `from_norm_share_clipped` (per token clipped to 0..1, then averaged), which cannot be negative
    and so lies above zero even for noise. Points: each head's own ratio, with heads whose direct
    effect is not positive as crosses: there the ratio is no share of anything.

    A sweep of top tokens alone has no panel for all tokens.

    Raises:
        InputError: a column is missing, or a selection of the table has no finite rows.
    """
    rows, missing = _norm_share_rows(heads)
    layers = layer_norm_share(rows)
    domain = _share_limits(rows, layers)
    points = placed(rows, "from_norm_share", domain).with_columns(
        edge=pl.when((pl.col("direct_effect") <= 0) & (pl.col("edge") == INSIDE))
        .then(pl.lit(NEGATIVE))
        .otherwise(pl.col("edge"))
    )
    panels = [
        _share_panel(
            points.filter(pl.col("selection") == selection),
            layers.filter(pl.col("selection") == selection),
            models=models_of(rows),
            title=title,
            domain=domain,
            shape=edge_shape(points),
            first=selection == "top",
        )
        for selection, title in SELECTIONS.items()
        if selection in rows["selection"]
    ]
    subtitle = ["Resample ablation; solid: sum of from_norm / sum of direct effect over a layer's"]
    subtitle[0] += " heads with positive direct effect"
    subtitle += _share_notes(points, layers, domain, missing=missing)
    return finish(alt.hconcat(*panels, spacing=24), "Share restored by the final norm", subtitle)


def breakdown_by_head(heads: pl.DataFrame) -> alt.VConcatChart:
    """E6: direct effect, ablated direct effect, and self-repair's three parts, head by head.

    One model, resample ablation, top tokens, all in logits. Within a layer the heads stand side by
    side in order; the bar across a layer is its mean. The two direct effects share one scale and
    the three parts another, so that heights compare.

    Raises:
        InputError: more than one model, a column is missing, or the table has no such rows.
    """
    names = tuple(EFFECTS)
    rows, missing = _rows("E6", heads, columns=names, one_model=True)
    rows = rows.with_columns(place_x=side_by_side(count_of(heads, "head")))
    effects, parts = _shared_limits(rows, names[:2]), _shared_limits(rows, names[2:])
    domains = dict(zip(names, (effects, effects, parts, parts, parts), strict=True))
    # A panel's page holds its own quantity only.
    others = {
        name: [c for n in names if n != name for c in (n, f"{n}_low", f"{n}_high")]
        for name in names
    }
    points = {name: placed(rows.drop(others[name]), name, domains[name]) for name in names}
    n_layers = count_of(heads, "layer")
    shape = edge_shape(*points.values())
    panels = [
        _breakdown_panel(points[name], name, n_layers=n_layers, domain=domains[name], shape=shape)
        for name in names
    ]
    outside = sum(n_outside(part) for part in points.values())
    cut = sum(n_cut(points[name], name, domains[name]) for name in names if bars_fit(rows))
    subtitle = [
        f"{rows['model'][0]}, resample ablation, each head's top 2 % of tokens",
        "Point: head, in order within its layer; bar: layer mean; largest head named",
        *axis_notes(outside=outside, drawn=rows.height * len(names), missing=missing, cut=cut),
    ]
    return finish(alt.vconcat(*panels, spacing=8), "What makes up for each head", subtitle)


def breakdown_across_models(depth: pl.DataFrame) -> alt.ConcatChart:
    """E12: the share of the direct effect that heads, MLPs and the norm make up for.

    Resample ablation, top tokens, a panel per model; bars per quarter of the layers (means over
    their heads) with 95 % bootstrap intervals over prompts, a diamond for all three together.

    Raises:
        InputError: a column is missing, or the table has no such rows.
    """
    rows, missing = _breakdown_rows(depth)
    values = with_intervals(rows, "share")
    domain = axis_limits(values, required=rows["share"], keep=0.95)
    points = placed(rows, "share", domain)
    shape = edge_shape(points, title="Bar")
    models = models_of(rows)
    panels = [
        _quarter_panel(
            points.filter(pl.col("model") == model), domain, shape=shape, first=index % 3 == 0
        )
        for index, model in enumerate(models)
    ]
    subtitle = [
        "Resample ablation, each head's top 2 % of tokens",
        "Share of the direct effect of a quarter's heads; whisker: 95 % interval; diamond: all",
    ]
    subtitle += axis_notes(
        outside=n_outside(points),
        drawn=points.height,
        missing=missing,
        cut=n_cut(points, "share", domain),
        things="bars",
    )
    chart = alt.concat(*panels, columns=3, spacing=24)
    return finish(chart, "What makes up for ablated heads", subtitle)


# What the lines are


def layer_means(rows: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """Unweighted mean over a layer's heads, per (model, selection, layer); keeps `depth`."""
    groups = rows.group_by("model", "selection", "layer", "depth", maintain_order=True)
    return groups.agg(pl.col(name).mean() for name in columns).sort("layer", maintain_order=True)


def layer_norm_share(rows: pl.DataFrame) -> pl.DataFrame:
    """Per (model, selection, layer): sum of from_norm / sum of direct_effect over its heads.

    A head's own ratio explodes where its direct effect is near zero, and so does any mean of such
    ratios; in a ratio of sums those heads weigh next to nothing in the denominator. Only heads with
    a positive mean direct effect enter: otherwise heads that lower the target's logit cancel those
    that raise it and the denominator passes through zero again. The price: where direct effects are
    mostly noise (all tokens, early layers), keeping the positive ones makes the denominator larger
    and the share smaller. Sums are over tokens (means times `n_tokens`). A layer without a head of
    positive direct effect has no share (null). `from_norm_share_clipped` is the
    unweighted mean over all of the layer's heads, as in the paper.
    """
    positive = pl.col("direct_effect") > 0
    restored = (pl.col("from_norm") * pl.col("n_tokens")).filter(positive).sum()
    effect = (pl.col("direct_effect") * pl.col("n_tokens")).filter(positive).sum()
    groups = rows.group_by("model", "selection", "layer", "depth", maintain_order=True)
    shares = groups.agg(
        from_norm_share=pl.when(effect > 0).then(restored / effect),
        from_norm_share_clipped=pl.col("from_norm_share_clipped").mean(),
        n_positive=positive.sum(),
        n_heads=pl.len(),
    )
    return shares.sort("layer", maintain_order=True)


# Captions


_REPAIR = (
    "Self-repair is what later parts of the model make up for once a head is ablated: the change of"
    " the target token's logit less the change of the head's own direct effect on it."
)


def caption_e1(heads: pl.DataFrame) -> str:
    rows, _ = _rows("E1", heads)
    return (
        f"Self-repair of the attention heads of {listed(models_of(rows))} ({_heads(rows)}) under"
        f" resample ablation, each averaged over its top tokens: {_sample(rows)}. {_REPAIR} A point"
        " is one head and a line joins the means of a model's layers; above zero the rest of the"
        " model compensates for the head, below zero it adds to the damage."
    )


def caption_e2(heads: pl.DataFrame) -> str:
    columns = ("direct_effect", "delta_logit")
    rows, _ = _rows("E2", heads, columns=columns, ablations=None, one_model=True)
    present = [name for name in ABLATIONS if name in set(rows["ablation"])]
    bars = "; bars are 95 % bootstrap intervals over prompts" if bars_fit(rows, "ablation") else ""
    return (
        f"A point is an attention head of {rows['model'][0]} ({_heads(rows)}) under"
        f" {listed(present)} ablation, averaged over its top tokens: {_sample(rows)}{bars}. Across:"
        " the head's direct effect on the target token's logit; up: by how much that logit changes"
        " when the head is ablated. On the dashed line y = −x the logit falls by just the direct"
        " effect; above it later parts of the model make up for part of the loss (self-repair), or"
        " the replaced output has some direct effect of its own, and at zero the whole loss is made"
        " up for."
    )


def caption_e5(heads: pl.DataFrame) -> str:
    rows, _ = _norm_share_rows(heads)
    top, every = (rows.filter(pl.col("selection") == name) for name in SELECTIONS)
    left_out = [part.filter(pl.col("direct_effect") <= 0).height for part in (top, every)]
    where = f"Each head's top tokens, {_sample(top)}"
    leaving = f"{left_out[0]:,} of {top.height:,} heads"
    if every.height:
        where = (
            f"Left: each head's top tokens, {_sample(top)}; right: all tokens,"
            f" {_sample(every, top=False)}"
        )
        leaving += f" left, {left_out[1]:,} of {every.height:,} right"
    return (
        "Removing a head's output also changes the final norm's scale, which restores part of its"
        f" direct effect; shown is that part as a share, for {listed(models_of(rows))} under resample"
        f" ablation. {where}. Solid lines divide sums over a layer's heads with"
        f" positive direct effect (leaving out {leaving}; crosses if within the axis), because a single head's"
        " ratio, a point, explodes where its direct effect is near zero; dashed lines are the"
        " paper's mean of per-token shares clipped to 0..1. The dotted rule is the 30 % that the"
        " paper reports, and triangles are heads beyond the axis."
    )


def caption_e6(heads: pl.DataFrame) -> str:
    rows, _ = _rows("E6", heads, columns=tuple(EFFECTS), one_model=True)
    return (
        f"Every attention head of {rows['model'][0]} ({_heads(rows)}) under resample ablation,"
        f" averaged over its top tokens: {_sample(rows)}. The first two rows are the head's direct"
        " effect on the target token's logit before and after ablation; the other three are what"
        " other heads, MLPs and the final norm's scale then make up for, and add up to self-repair:"
        " positive restores the logit, negative adds to the loss. A point is one head, in order"
        " within its layer, a bar the layer's mean; the first two rows share a scale, the last three"
        " another."
    )


def caption_e12(depth: pl.DataFrame) -> str:
    rows, _ = _breakdown_rows(depth)
    return (
        f"What makes up for an ablated attention head, in {listed(models_of(rows))} under resample"
        f" ablation, on the head's top tokens (the 2 % with its largest direct effect):"
        f" {_range_of(rows)}. {_REPAIR} Each bar is a part of it as a share of the heads' direct"
        " effect, for a quarter of the model's layers: a ratio of means over the quarter's heads,"
        " so 100 % would restore all that the heads contributed directly and a negative share adds"
        " to the loss. The three bars add up to the black diamond; whiskers are 95 % bootstrap"
        " intervals over prompts."
    )


def _range_of(rows: pl.DataFrame) -> str:
    tokens, prompts = amount(rows["n_tokens"]), amount(rows["n_prompts"])
    return f"{tokens} tokens per quarter, {prompts} prompts"


def _heads(rows: pl.DataFrame) -> str:
    return f"{rows.select('model', 'layer', 'head').n_unique():,} in all"


def _sample(rows: pl.DataFrame, *, top: bool = True) -> str:
    which = " (the 2 % with its largest direct effect)" if top else ""
    return f"{amount(rows['n_tokens'])} tokens per head{which}, {amount(rows['n_prompts'])} prompts"


# Rows


def _norm_share_rows(heads: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """E5's rows of top tokens, and of all tokens if they were swept; as `_rows`."""
    columns = ("from_norm_share", "from_norm", "direct_effect", "from_norm_share_clipped")
    present = set(heads["selection"]) if "selection" in heads.columns else set()
    selections = [name for name in SELECTIONS if name == "top" or name in present]
    return _rows("E5", heads, columns=columns, selections=selections)


def _rows(
    figure: str,
    heads: pl.DataFrame,
    *,
    columns: Sequence[str] = ("self_repair", "direct_effect"),
    ablations: Sequence[str] | None = ("resample",),
    selections: Sequence[str] = ("top",),
    one_model: bool = False,
) -> tuple[pl.DataFrame, int]:
    """The rows that a figure draws, with `depth`, and how many it lacks a finite value for."""
    needed = [*KEYS, *columns, *_interval_columns(columns)]
    check_columns(figure, heads, "heads", needed)
    models = models_of(heads)
    if one_model and len(models) != 1:
        raise InputError(f"{figure}: takes one model, got {listed(models) if models else 'none'}")
    last = pl.col("layer").cast(pl.Int64).max().over("model")
    depth = pl.when(last > 0).then(pl.col("layer") / last).otherwise(0.0)
    table = heads.with_columns(depth=depth)
    wanted = table.filter(
        pl.col("ablation").is_in(ABLATIONS if ablations is None else ablations),
        pl.col("selection").is_in(selections),
    )
    finite = pl.all_horizontal(pl.col(name).cast(pl.Float64).is_finite() for name in columns)
    kept = wanted.filter(finite.fill_null(False))
    for selection in selections:
        if not (kept["selection"] == selection).any():
            which = "/".join(ablations or ABLATIONS)
            raise InputError(
                f"{figure}: no rows with ablation {which}, selection {selection} and finite"
                f" {', '.join(columns)}; run the sweep and the decomposition with this ablation"
            )
    drawn = [*KEYS, "depth", *columns, *_interval_columns(columns)]
    order = ["model", "selection", "ablation", "layer", "head"]
    rank = pl.col("model").replace_strict(models, list(range(len(models))), return_dtype=pl.Int64)
    # JSON has no NaN: a missing bound is null.
    kept = kept.select(drawn).with_columns(pl.selectors.float().fill_nan(None))
    return kept.sort(rank, *order[1:]), wanted.height - kept.height


def _interval_columns(columns: Sequence[str]) -> list[str]:
    bounded = [name for name in columns if not name.endswith("_clipped")]
    return [f"{name}_{end}" for name in bounded for end in ("low", "high")]


def _breakdown_rows(depth: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """One row per model, quarter and part, and how many of those have no finite share."""
    keys = ("model", "ablation", "selection", "depth", "n_heads", "n_tokens", "n_prompts")
    columns = [*keys, *BREAKDOWN, *_interval_columns(tuple(BREAKDOWN))]
    check_columns("E12", depth, "depth", columns)
    wanted = depth.filter(pl.col("depth").is_in(QUARTERS), ablation="resample", selection="top")
    parts = [
        wanted.select(
            *("model", "depth", "n_heads", "n_tokens", "n_prompts"),
            part=pl.lit(words),
            share=pl.col(name).cast(pl.Float64),
            share_low=pl.col(f"{name}_low").cast(pl.Float64),
            share_high=pl.col(f"{name}_high").cast(pl.Float64),
        )
        for name, (words, _) in BREAKDOWN.items()
    ]
    rows = pl.concat(parts).with_columns(quarter=pl.col("depth").str.strip_suffix(" quarter"))
    kept = rows.filter(pl.col("share").is_finite().fill_null(False))
    if kept.is_empty():
        raise InputError(
            "E12: the depth table has no quarters with ablation resample, selection top and"
            " finite shares; run the sweep and the decomposition with this ablation"
        )
    ranks = {name: index for index, name in enumerate(QUARTERS)}
    rank = pl.col("depth").replace_strict(ranks, return_dtype=pl.Int64)
    kept = kept.with_columns(pl.selectors.float().fill_nan(None), rank=rank)
    return kept, rows.height - kept.height


# Axes


def _share_notes(
    points: pl.DataFrame, layers: pl.DataFrame, domain: Limits, *, missing: int
) -> list[str]:
    notes = []
    parts = [points.filter(pl.col("selection") == name) for name in SELECTIONS]
    counts = [f"{n_outside(part):,} of {part.height:,}" for part in parts]
    if n_outside(points):
        right = f" left, {counts[1]} right" if parts[1].height else ""
        notes.append(f"Beyond the axis, triangles at its edge: {counts[0]} heads{right}")
    lines = _long_shares(layers).drop_nulls("share")
    off = lines.filter(~pl.col("share").is_between(*domain)).height
    if off:
        notes.append(f"The lines leave the axis at {off:,} of their {lines.height:,} points")
    return notes + axis_notes(outside=0, drawn=0, missing=missing)


def _depth_axis() -> alt.X:
    return alt.X(
        "depth:Q", title=DEPTH_TITLE, scale=axis_scale((-0.03, 1.03)), axis=alt.Axis(tickCount=6)
    )


def _shared_limits(rows: pl.DataFrame, names: Sequence[str]) -> Limits:
    """Limits for several columns: their intervals, and layer means without exception."""
    intervals = pl.concat([with_intervals(rows, name) for name in names])
    values = pl.concat([rows[name].cast(pl.Float64).rename("value") for name in names])
    means = layer_means(rows, *names)
    include = [0.0, *(value for name in names for value in means[name])]
    return axis_limits(intervals, required=values, include=include)


def _share_limits(rows: pl.DataFrame, layers: pl.DataFrame) -> Limits:
    """Room for the heads' shares on top tokens and for the lines of both panels.

    Not for the heads on all tokens, whose ratios have no scale, and never beyond SHARE_BOUNDS.
    """
    top = rows.filter((pl.col("selection") == "top") & (pl.col("direct_effect") > 0))
    lines = _long_shares(layers)["share"].drop_nulls()
    inner = lines.quantile(0.02), lines.quantile(0.98)
    include = [0.0, 0.5, *(value for value in inner if value is not None)]
    shares = top["from_norm_share"] if top.height else lines
    low, high = axis_limits(shares, include=include, keep=0.96, reach=0.1)
    return max(low, SHARE_BOUNDS[0]), min(high, SHARE_BOUNDS[1])


# Marks


def _model_colour(models: Sequence[str]) -> alt.Color:
    scale = alt.Scale(domain=list(models), range=list(COLOURS))
    if len(models) > len(COLOURS):
        scale = alt.Scale(domain=list(models), scheme="tableau20")
    legend = alt.Legend(symbolOpacity=1, symbolType="circle", symbolSize=70, symbolStrokeWidth=0)
    return alt.Color("model:N", title="Model", scale=scale, legend=legend)


# Panels


def _no_repair_line(x_domain: Limits, y_domain: Limits) -> list[dict[str, float]]:
    """The two ends of y = -x within the axes (which both contain 0)."""
    start, stop = max(x_domain[0], -y_domain[1]), min(x_domain[1], -y_domain[0])
    return [{"x": start, "y": -start}, {"x": stop, "y": -stop}]


def _effect_panel(
    points: pl.DataFrame,
    ablation: str,
    *,
    x_domain: Limits,
    y_domain: Limits,
    last_layer: int,
    shape: alt.Shape,
    first: bool,
    side: int,
) -> alt.LayerChart:
    x = alt.X("direct_effect_drawn:Q", title="Direct effect (logits)", scale=axis_scale(x_domain))
    title = "Change of the logit when ablated (logits)" if first else None
    y = alt.Y("delta_logit_drawn:Q", title=title, scale=axis_scale(y_domain))
    colour = layer_colour(last_layer)
    tooltip = [
        *HEAD_TIP,
        *interval_tip("direct_effect", "Direct effect"),
        *interval_tip("delta_logit", "Change of the logit"),
    ]
    layers: list[alt.Chart] = [
        level_rule(0.0),
        *_no_repair_marks(x_domain, y_domain, side, named=first),
    ]
    if bars_fit(points):
        bars = chart_of(interval_bars(points, "delta_logit", y_domain)).mark_rule(
            strokeWidth=0.8, strokeOpacity=0.5
        )
        low = y.copy()
        low.shorthand = "delta_logit_low:Q"
        layers.append(bars.encode(x=x, y=low, y2="delta_logit_high", color=colour))
    layers.append(point_marks(points).encode(x=x, y=y, color=colour, shape=shape, tooltip=tooltip))
    return alt.LayerChart(layer=layers).properties(
        width=side, height=side, title=f"{ablation.capitalize()} ablation"
    )


def _no_repair_marks(
    x_domain: Limits, y_domain: Limits, side: int, *, named: bool
) -> list[alt.Chart]:
    ends = _no_repair_line(x_domain, y_domain)
    line = alt.Chart(alt.Data(values=ends)).mark_line(color="black", strokeDash=[5, 3])
    marks = [line.encode(x="x:Q", y="y:Q")]
    if named:
        slope = (x_domain[1] - x_domain[0]) / (y_domain[1] - y_domain[0])
        along = ends[0]["x"] + 0.62 * (ends[1]["x"] - ends[0]["x"])
        text = alt.Chart(alt.Data(values=[{"x": along, "y": -along}])).mark_text(
            text="y = −x: no self-repair", angle=math.degrees(math.atan(slope)), dy=12, fontSize=12
        )
        marks.append(text.encode(x="x:Q", y="y:Q"))
    return marks


def _share_panel(
    points: pl.DataFrame,
    layers: pl.DataFrame,
    *,
    models: Sequence[str],
    title: str,
    domain: Limits,
    shape: alt.Shape,
    first: bool,
) -> alt.LayerChart:
    axis = alt.Axis(format=".0%", tickCount=6)
    words = "from_norm / direct effect (%)" if first else None
    y = alt.Y("from_norm_share_drawn:Q", title=words, scale=axis_scale(domain), axis=axis)
    colour = _model_colour(models)
    tooltip = [
        *HEAD_TIP,
        *interval_tip("from_norm_share", "Share", unit="of 1"),
        *interval_tip("direct_effect", "Direct effect"),
    ]
    dots = point_marks(points).encode(
        x=_depth_axis(), y=y, color=colour, shape=shape, tooltip=tooltip
    )
    line = alt.Y("share:Q", title=words, scale=axis_scale(domain), axis=axis)
    dash = alt.StrokeDash(
        "definition:N",
        title="Line, per layer",
        scale=alt.Scale(domain=list(DEFINITIONS.values()), range=[[1, 0], [5, 3]]),
        legend=alt.Legend(symbolStrokeColor="black", symbolSize=300, labelLimit=260),
    )
    lines = chart_of(_long_shares(layers)).mark_line(strokeWidth=2.2, clip=True)
    curves = lines.encode(x=_depth_axis(), y=line, color=colour, strokeDash=dash)
    panel = alt.LayerChart(layer=[level_rule(0.0), dots, curves, *_paper_marks(named=first)])
    return panel.properties(width=340, height=340, title=title)


def _long_shares(layers: pl.DataFrame) -> pl.DataFrame:
    """One row per layer and definition; a layer without a share interrupts its line (null)."""
    keys = ["model", "selection", "layer", "depth"]
    long = layers.unpivot(list(DEFINITIONS), index=keys, variable_name="name", value_name="share")
    return long.with_columns(definition=pl.col("name").replace_strict(DEFINITIONS)).drop("name")


def _paper_marks(*, named: bool) -> list[alt.Chart]:
    level = alt.Chart(alt.Data(values=[{"level": PAPER_NORM_SHARE, "depth": 0.0}]))
    rule = level.mark_rule(color="black", strokeDash=[2, 3], strokeWidth=1.2).encode(y="level:Q")
    if not named:
        return [rule]
    mark = level.encode(x="depth:Q", y="level:Q")
    text = f"paper: {PAPER_NORM_SHARE:.0%}".replace("%", " %")
    return [rule, *haloed(mark, text=text, align="left", dy=-8, fontSize=12)]


def _breakdown_panel(
    points: pl.DataFrame,
    name: str,
    *,
    n_layers: int,
    domain: Limits,
    shape: alt.Shape,
) -> alt.LayerChart:
    title, colour = EFFECTS[name]
    x = layer_axis(n_layers, labels=name == list(EFFECTS)[-1])
    axis = alt.Axis(title=title, tickCount=4, minExtent=44)
    y = alt.Y(f"{name}_drawn:Q", scale=axis_scale(domain), axis=axis)
    tooltip = [*HEAD_TIP, *interval_tip(name, " ".join(title).removesuffix(" (logits)"))]
    layers = [layer_bands(n_layers), level_rule(0.0)]
    if bars_fit(points):
        bars = chart_of(interval_bars(points, name, domain)).mark_rule(
            color=colour, strokeOpacity=0.35
        )
        low = alt.Y(f"{name}_low:Q", scale=axis_scale(domain), axis=axis)
        layers.append(bars.encode(x=x, y=low, y2=f"{name}_high"))
    dots = point_marks(points).encode(
        x=x, y=y, color=alt.value(colour), shape=shape, tooltip=tooltip
    )
    layers += [dots, _mean_bars(points, name, domain), _largest_name(points, name)]
    return alt.LayerChart(layer=layers).properties(width=760, height=110)


def _mean_bars(points: pl.DataFrame, name: str, domain: Limits) -> alt.Chart:
    means = layer_means(points, name).with_columns(
        start=pl.col("layer") - 0.45, stop=pl.col("layer") + 0.45
    )
    bars = chart_of(means).mark_rule(strokeWidth=2.5, color=COLOURS[1])
    return bars.encode(x="start:Q", x2="stop:Q", y=alt.Y(f"{name}:Q", scale=axis_scale(domain)))


def _largest_name(points: pl.DataFrame, name: str) -> alt.Chart:
    largest = points.sort(pl.col(name).abs(), descending=True, maintain_order=True).head(1)
    word = pl.format("L{}H{}", "layer", "head")
    right = bool((largest["depth"] > 0.5).item())
    label = chart_of(largest.with_columns(word=word)).mark_text(
        align="right" if right else "left", dx=-6 if right else 6, dy=-5, fontSize=11
    )
    return label.encode(x="place_x:Q", y=f"{name}_drawn:Q", text="word:N")


def _quarter_panel(
    points: pl.DataFrame, domain: Limits, *, shape: alt.Shape, first: bool
) -> alt.LayerChart:
    words, inks = zip(*BREAKDOWN.values(), strict=True)
    quarters = points.sort("rank")["quarter"].unique(maintain_order=True).to_list()
    x = alt.X(
        "quarter:O",
        title="Quarter of the layers",
        scale=alt.Scale(domain=quarters),
        axis=alt.Axis(labelAngle=0, grid=False),
    )
    offset = alt.XOffset("part:N", scale=alt.Scale(domain=list(words)))
    legend = alt.Legend(symbolType="square", symbolOpacity=1)
    colour = alt.Color(
        "part:N",
        title="From",
        scale=alt.Scale(domain=list(words), range=list(inks)),
        legend=legend,
    )
    title = "Share of the direct effect (%)" if first else None
    axis = percent_axis(tickCount=6)
    y = alt.Y("share_drawn:Q", title=title, scale=axis_scale(domain), axis=axis)
    tooltip = [
        alt.Tooltip(field="model", type="nominal", title="Model"),
        alt.Tooltip(field="depth", type="nominal", title="Layers"),
        alt.Tooltip(field="part", type="nominal", title="From"),
        plain_tip("n_heads", "Heads"),
        *interval_tip("share", "Share", unit="of 1"),
    ]
    place = {"x": x, "xOffset": offset, "color": colour}
    bars = chart_of(points.filter(pl.col("part") != TOTAL)).mark_bar()
    layers = [bars.encode(**place, y=y, y2=alt.datum(0.0), tooltip=tooltip), level_rule(0.0)]
    whiskers = chart_of(interval_bars(points, "share", domain)).mark_rule(strokeWidth=1.2)
    low = y.copy()
    low.shorthand = "share_low:Q"
    layers.append(whiskers.encode(x=x, xOffset=offset, y=low, y2="share_high"))
    total = chart_of(points.filter(part=TOTAL, edge=INSIDE)).mark_point(
        filled=True, shape="diamond", size=75, opacity=1
    )
    layers.append(total.encode(**place, y=y, tooltip=tooltip))
    beyond = points.filter(pl.col("edge") != INSIDE)
    if beyond.height:
        marks = point_marks(beyond).mark_point(filled=True, stroke="white", strokeWidth=1)
        layers.append(marks.encode(**place, y=y, shape=shape, tooltip=tooltip))
    width = max(150, 75 * len(quarters))
    return alt.LayerChart(layer=layers).properties(
        width=width, height=220, title=points["model"][0]
    )
