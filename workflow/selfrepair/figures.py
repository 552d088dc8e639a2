"""The figures of the study: pure functions from the `heads` table to an altair chart.

No model, no torch, no paths except in `save_figure`. The table has one row per (model, ablation,
selection, layer, head); effects are in logits, means over the row's tokens. "Paper" is Rushing &
Nanda, "Explorations of Self-Repair in Language Models" (ICML 2024); E1 to E6 are experiments of it.

Nothing is cropped silently: an axis shows every value unless a few would stretch it beyond use;
those are then triangles at its edge, and the subtitle counts them. Rows without a finite value are
left out, never drawn as 0, and counted too.
"""

from __future__ import annotations

import html
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import polars as pl
import vl_convert

from .errors import InputError

ABLATIONS = ("resample", "mean", "zero")
PAPER_NORM_SHARE = 0.3
# The version of Vega-Lite that altair writes, as vl_convert names it.
VEGA_LITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
# Beyond these bounds a share of the direct effect says only that the direct effect is near zero.
SHARE_BOUNDS = (-0.5, 1.25)
# Okabe & Ito's colours, safe for colour-blind readers, less the yellow (too pale on white).
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#999999",
)
GREY = "#666666"
# More bars than this in one panel hide the points that they belong to.
MOST_BARS = 400

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
DEPTH_TITLE = "Relative depth (layer / last layer)"
# Where a point is drawn, and as what: those beyond an axis become triangles that point outwards.
EDGES = {
    "within the axes": "circle",
    "above the axis": "triangle-up",
    "below the axis": "triangle-down",
    "left of the axis": "triangle-left",
    "right of the axis": "triangle-right",
    "direct effect ≤ 0": "cross",
}
INSIDE, ABOVE, BELOW, LEFT, RIGHT, NEGATIVE = EDGES


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
    domain = _limits(rows["self_repair"], include=[0.0, *means["self_repair"]])
    points = _placed(rows, "self_repair", domain)
    colour = _model_colour(_models(rows))
    tooltip = [*_HEAD_TIP, *_interval_tip("self_repair", "Self-repair"), _tip("direct_effect")]
    title = "Self-repair (logits)"
    dots = _dots(points).encode(
        x=_depth_axis(),
        y=alt.Y("self_repair_drawn:Q", title=title, scale=_scale(domain)),
        color=colour,
        shape=_edge_shape(points),
        tooltip=tooltip,
    )
    lines = (
        _chart(means)
        .mark_line(strokeWidth=2.5)
        .encode(
            x=_depth_axis(),
            y=alt.Y("self_repair:Q", title=title, scale=_scale(domain)),
            color=colour,
        )
    )
    chart = alt.LayerChart(layer=[_rule(0.0), dots, lines]).properties(width=620, height=360)
    subtitle = ["Resample ablation, each head's top 2 % of tokens; point: head, line: layer mean"]
    subtitle += _notes(outside=_outside(points), drawn=points.height, missing=missing)
    return _finish(chart, "Self-repair by depth", subtitle)


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
    x_domain = _limits(rows["direct_effect"])
    y_domain = _limits(_with_intervals(rows, "delta_logit"), required=rows["delta_logit"])
    points = _placed_on_both(rows, x_domain=x_domain, y_domain=y_domain)
    panels = [
        _effect_panel(
            points.filter(pl.col("ablation") == name),
            name,
            x_domain=x_domain,
            y_domain=y_domain,
            last_layer=_count(heads, "layer") - 1,
            shape=_edge_shape(points),
            first=name == present[0],
            side=320 if len(present) > 1 else 420,
        )
        for name in present
    ]
    chart = alt.hconcat(*panels, spacing=24)
    model = rows["model"][0]
    bars = _bars_fit(points, "ablation")
    subtitle = [f"{model}, each head's top 2 % of tokens; point: head"]
    subtitle[0] += ", bar: 95 % interval" if bars else ""
    cut = _cut(points, "delta_logit", y_domain) if bars else 0
    subtitle += _notes(outside=_outside(points), drawn=points.height, missing=missing, cut=cut)
    return _finish(chart, "Change of the logit against direct effect", subtitle)


def norm_share_by_depth(heads: pl.DataFrame) -> alt.HConcatChart:
    """E5: the final norm's part of self-repair as a share of the direct effect, against depth.

    Resample ablation, all models; one panel for top tokens, one for all tokens. Solid line:
    `layer_norm_share`, a ratio of sums. Dashed: the paper's share, the layer's mean of
    `from_norm_share_clipped` (per token clipped to 0..1, then averaged), which cannot be negative
    and so lies above zero even for noise. Points: each head's own ratio, with heads whose direct
    effect is not positive as crosses: there the ratio is no share of anything.

    Raises:
        InputError: a column is missing, or either selection has no rows.
    """
    columns = ("from_norm_share", "from_norm", "direct_effect", "from_norm_share_clipped")
    rows, missing = _rows("E5", heads, columns=columns, selections=tuple(SELECTIONS))
    layers = layer_norm_share(rows)
    domain = _share_limits(rows, layers)
    points = _placed(rows, "from_norm_share", domain).with_columns(
        edge=pl.when((pl.col("direct_effect") <= 0) & (pl.col("edge") == INSIDE))
        .then(pl.lit(NEGATIVE))
        .otherwise(pl.col("edge"))
    )
    panels = [
        _share_panel(
            points.filter(pl.col("selection") == selection),
            layers.filter(pl.col("selection") == selection),
            models=_models(rows),
            title=title,
            domain=domain,
            shape=_edge_shape(points),
            first=selection == "top",
        )
        for selection, title in SELECTIONS.items()
    ]
    subtitle = ["Resample ablation; solid: sum of from_norm / sum of direct effect over a layer's"]
    subtitle[0] += " heads with positive direct effect"
    subtitle += _share_notes(points, layers, domain, missing=missing)
    return _finish(alt.hconcat(*panels, spacing=24), "Share restored by the final norm", subtitle)


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
    rows = rows.with_columns(place_x=_side_by_side(_count(heads, "head")))
    effects, parts = _shared_limits(rows, names[:2]), _shared_limits(rows, names[2:])
    domains = dict(zip(names, (effects, effects, parts, parts, parts), strict=True))
    points = {name: _placed(rows, name, domains[name]) for name in names}
    n_layers = _count(heads, "layer")
    shape = _edge_shape(*points.values())
    panels = [
        _breakdown_panel(points[name], name, n_layers=n_layers, domain=domains[name], shape=shape)
        for name in names
    ]
    outside = sum(_outside(part) for part in points.values())
    cut = sum(_cut(points[name], name, domains[name]) for name in names if _bars_fit(rows))
    subtitle = [
        f"{rows['model'][0]}, resample ablation, each head's top 2 % of tokens",
        "Point: head, in order within its layer; bar: layer mean; largest head named",
        *_notes(outside=outside, drawn=rows.height * len(names), missing=missing, cut=cut),
    ]
    return _finish(alt.vconcat(*panels, spacing=8), "What makes up for each head", subtitle)


FIGURES: dict[str, Callable[[pl.DataFrame], alt.TopLevelMixin]] = {
    "E1": self_repair_by_depth,
    "E2": effect_against_change,
    "E5": norm_share_by_depth,
    "E6": breakdown_by_head,
}


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


def caption(figure: str, heads: pl.DataFrame) -> str:
    """Two to four sentences for readers who do not know the paper; the numbers are the table's.

    Args:
        figure: "E1", "E2", "E5" or "E6".

    Raises:
        InputError: an unknown figure, or a table that this figure refuses.
    """
    if figure not in _CAPTIONS:
        raise InputError(f"figure: {figure!r} has no caption; take one of {', '.join(_CAPTIONS)}")
    return _CAPTIONS[figure](heads)


_REPAIR = (
    "Self-repair is what later parts of the model make up for once a head is ablated: the change of"
    " the target token's logit less the change of the head's own direct effect on it."
)


def _caption_e1(heads: pl.DataFrame) -> str:
    rows, _ = _rows("E1", heads)
    return (
        f"Self-repair of the attention heads of {_list(_models(rows))} ({_heads(rows)}) under"
        f" resample ablation, each averaged over its top tokens: {_sample(rows)}. {_REPAIR} A point"
        " is one head and a line joins the means of a model's layers; above zero the rest of the"
        " model compensates for the head, below zero it adds to the damage."
    )


def _caption_e2(heads: pl.DataFrame) -> str:
    columns = ("direct_effect", "delta_logit")
    rows, _ = _rows("E2", heads, columns=columns, ablations=None, one_model=True)
    present = [name for name in ABLATIONS if name in set(rows["ablation"])]
    bars = "; bars are 95 % bootstrap intervals over prompts" if _bars_fit(rows, "ablation") else ""
    return (
        f"A point is an attention head of {rows['model'][0]} ({_heads(rows)}) under"
        f" {_list(present)} ablation, averaged over its top tokens: {_sample(rows)}{bars}. Across:"
        " the head's direct effect on the target token's logit; up: by how much that logit changes"
        " when the head is ablated. On the dashed line y = −x the logit falls by just the direct"
        " effect; above it later parts of the model make up for part of the loss (self-repair), or"
        " the replaced output has some direct effect of its own, and at zero the whole loss is made"
        " up for."
    )


def _caption_e5(heads: pl.DataFrame) -> str:
    columns = ("from_norm_share", "from_norm", "direct_effect", "from_norm_share_clipped")
    rows, _ = _rows("E5", heads, columns=columns, selections=tuple(SELECTIONS))
    top, every = (rows.filter(pl.col("selection") == name) for name in SELECTIONS)
    left_out = [part.filter(pl.col("direct_effect") <= 0).height for part in (top, every)]
    return (
        "Removing a head's output also changes the final norm's scale, which restores part of its"
        f" direct effect; shown is that part as a share, for {_list(_models(rows))} under resample"
        f" ablation. Left: each head's top tokens, {_sample(top)}; right: all tokens,"
        f" {_sample(every, top=False)}. Solid lines divide sums over a layer's heads with"
        f" positive direct effect (leaving out {left_out[0]:,} of {top.height:,} heads left,"
        f" {left_out[1]:,} of {every.height:,} right; crosses if within the axis), because a single head's"
        " ratio, a point, explodes where its direct effect is near zero; dashed lines are the"
        " paper's mean of per-token shares clipped to 0..1. The dotted rule is the 30 % that the"
        " paper reports, and triangles are heads beyond the axis."
    )


def _caption_e6(heads: pl.DataFrame) -> str:
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


_CAPTIONS: dict[str, Callable[[pl.DataFrame], str]] = {
    "E1": _caption_e1,
    "E2": _caption_e2,
    "E5": _caption_e5,
    "E6": _caption_e6,
}


def _heads(rows: pl.DataFrame) -> str:
    return f"{rows.select('model', 'layer', 'head').n_unique():,} in all"


def _sample(rows: pl.DataFrame, *, top: bool = True) -> str:
    which = " (the 2 % with its largest direct effect)" if top else ""
    return f"{_range(rows['n_tokens'])} tokens per head{which}, {_range(rows['n_prompts'])} prompts"


def _range(values: pl.Series) -> str:
    low, high = int(values.min()), int(values.max())  # type: ignore[arg-type]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# Saving


def save_figure(chart: alt.TopLevelMixin, caption: str, stem: Path) -> list[Path]:
    """Write `<stem>.html`, `.svg`, `.png` (two pixels per unit) and `.pdf`; return their paths.

    The page works offline: Vega is inlined, and the caption stands under the figure. All four are
    rendered before any is written, and each appears under its name only when complete. The same
    chart gives the same bytes, except the PDF: the same drawing, but vl-convert 1.9 lists its
    resources in random order.
    """
    # One validated spec and one drawing for all: both take seconds for a large model.
    spec = chart.to_dict()
    svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE)
    contents = {
        "html": _page(spec, caption),
        "svg": svg.encode(),
        "png": vl_convert.svg_to_png(svg, scale=2),
        "pdf": vl_convert.svg_to_pdf(svg),
    }
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in contents]
    stem.parent.mkdir(parents=True, exist_ok=True)
    for path, content in zip(paths, contents.values(), strict=True):
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            partial.write_bytes(content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return paths


def _page(spec: dict[str, Any], caption: str) -> bytes:
    # The menu's editor entry would send the data to a web site.
    actions = {"export": True, "source": True, "compiled": False, "editor": False}
    options = json.dumps({"mode": "vega-lite", "actions": actions})
    # "</script>" in a model's name must not end the script.
    data = json.dumps(spec, allow_nan=False).replace("</", "<\\/")
    # The stub forgets that the snippet is optional (vl-convert 1.9).
    bundle = vl_convert.javascript_bundle(vl_version=VEGA_LITE)  # type: ignore[call-arg]
    title = html.escape(spec["title"]["text"])
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="UTF-8">\n'
        f"<title>{title}</title>\n<style>\n"
        "body { margin: 2em; font-family: Arial, sans-serif; background: white; color: #222; }\n"
        "figure { margin: 0; }\n"
        "figcaption { max-width: 46em; margin-top: 1em; line-height: 1.45; }\n"
        f"</style>\n<script>{bundle}</script>\n</head>\n<body>\n<figure>\n"
        f'<div id="figure"></div>\n<figcaption>{html.escape(caption)}</figcaption>\n</figure>\n'
        f'<script>vegaEmbed("#figure", {data}, {options});</script>\n</body>\n</html>\n'
    )
    return page.encode()


# Rows


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
    _check_columns(figure, heads, columns)
    models = _models(heads)
    if one_model and len(models) != 1:
        raise InputError(f"{figure}: takes one model, got {_list(models) if models else 'none'}")
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


def _check_columns(figure: str, heads: pl.DataFrame, columns: Sequence[str]) -> None:
    needed = [*KEYS, *columns, *_interval_columns(columns)]
    missing = [name for name in needed if name not in heads.columns]
    if missing:
        raise InputError(
            f"{figure}: the heads table has no column {', '.join(missing)};"
            " write it with this version of the decomposition"
        )


def _interval_columns(columns: Sequence[str]) -> list[str]:
    bounded = [name for name in columns if not name.endswith("_clipped")]
    return [f"{name}_{end}" for name in bounded for end in ("low", "high")]


def _models(rows: pl.DataFrame) -> list[str]:
    return rows["model"].unique(maintain_order=True).to_list()


def _count(heads: pl.DataFrame, name: str) -> int:
    """Number of layers or heads, from the largest index in the table."""
    return int(heads[name].cast(pl.Int64).max()) + 1  # type: ignore[arg-type]


def _side_by_side(n_heads: int) -> pl.Expr:
    """A head's place within its layer's unit of the axis."""
    return pl.col("layer") + (pl.col("head") - (n_heads - 1) / 2) * 0.8 / n_heads


def _with_intervals(rows: pl.DataFrame, name: str) -> pl.Series:
    parts = [rows[column].cast(pl.Float64) for column in (name, f"{name}_low", f"{name}_high")]
    return pl.concat(part.drop_nulls().rename("value") for part in parts)


# Axes


def _limits(
    values: pl.Series,
    *,
    include: Iterable[float] = (0.0,),
    required: pl.Series | None = None,
    keep: float = 0.99,
    reach: float = 1.5,
) -> tuple[float, float]:
    """Limits that show `include` and every value, except those that would stretch them beyond use.

    Excepted is a value farther than `reach` spans from the span of `include` and the central `keep`
    of the values. `required`: the values whose centre counts, if not `values` (an interval may be
    long where its point is ordinary).
    """
    extra = list(include)
    numbers = values.cast(pl.Float64).to_numpy()
    core = numbers if required is None else required.cast(pl.Float64).to_numpy()
    tails = np.quantile(core, [(1 - keep) / 2, (1 + keep) / 2])
    low, high = min(*extra, tails[0]), max(*extra, tails[1])
    fence = reach * (high - low)
    near = numbers[(numbers >= low - fence) & (numbers <= high + fence)]
    low, high = min([low, *near]), max([high, *near])
    margin = 0.06 * (high - low) or 0.5
    return float(low - margin), float(high + margin)


def _placed(rows: pl.DataFrame, column: str, domain: tuple[float, float]) -> pl.DataFrame:
    """Adds `<column>_drawn`, moved to the axis' edge where beyond, and `edge` (of EDGES)."""
    low, high = domain
    value = pl.col(column)
    edge = pl.when(value > high).then(pl.lit(ABOVE)).when(value < low).then(pl.lit(BELOW))
    return rows.with_columns(
        value.clip(low, high).alias(f"{column}_drawn"),
        edge=edge.otherwise(pl.lit(INSIDE)),
    )


def _placed_on_both(
    rows: pl.DataFrame, *, x_domain: tuple[float, float], y_domain: tuple[float, float]
) -> pl.DataFrame:
    """`_placed` along delta_logit and, where that is within its axis, along direct_effect."""
    turned = {ABOVE: RIGHT, BELOW: LEFT}
    across = _placed(rows, "direct_effect", x_domain)
    side = pl.col("edge").replace(turned)
    across = across.with_columns(side=side).drop("edge")
    placed = _placed(across, "delta_logit", y_domain)
    edge = pl.when(pl.col("edge") == INSIDE).then(pl.col("side")).otherwise(pl.col("edge"))
    return placed.with_columns(edge=edge).drop("side")


def _bars(rows: pl.DataFrame, column: str, domain: tuple[float, float]) -> pl.DataFrame:
    """The intervals of the points within the axes, their ends cut at the axis."""
    ends = [pl.col(f"{column}_{end}").clip(*domain) for end in ("low", "high")]
    bounded = pl.all_horizontal(end.is_not_null() for end in ends)
    return rows.filter(pl.col("edge") == INSIDE, bounded).with_columns(ends)


def _cut(rows: pl.DataFrame, column: str, domain: tuple[float, float]) -> int:
    """How many of `_bars` reach beyond the axis."""
    low, high = pl.col(f"{column}_low") < domain[0], pl.col(f"{column}_high") > domain[1]
    return rows.filter(pl.col("edge") == INSIDE, low | high).height


def _bars_fit(rows: pl.DataFrame, *panel: str) -> bool:
    sizes = rows.group_by(panel).len()["len"] if panel else pl.Series([rows.height])
    return int(sizes.max()) <= MOST_BARS  # type: ignore[arg-type]


def _outside(points: pl.DataFrame) -> int:
    return points.filter(~pl.col("edge").is_in([INSIDE, NEGATIVE])).height


def _notes(*, outside: int, drawn: int, missing: int, cut: int = 0) -> list[str]:
    notes = []
    if outside:
        notes.append(f"Beyond the axes, triangles at the edge: {outside:,} of {drawn:,} points")
    if cut:
        notes.append(f"Interval bars cut at the axis: {cut:,}")
    if missing:
        notes.append(f"Rows of the table without a finite value, not drawn: {missing:,}")
    return notes


def _share_notes(
    points: pl.DataFrame, layers: pl.DataFrame, domain: tuple[float, float], *, missing: int
) -> list[str]:
    notes = []
    parts = [points.filter(pl.col("selection") == name) for name in SELECTIONS]
    counts = [f"{_outside(part):,} of {part.height:,}" for part in parts]
    if _outside(points):
        notes.append(
            f"Beyond the axis, triangles at its edge: {counts[0]} heads left, {counts[1]} right"
        )
    lines = _long_shares(layers).drop_nulls("share")
    off = lines.filter(~pl.col("share").is_between(*domain)).height
    if off:
        notes.append(f"The lines leave the axis at {off:,} of their {lines.height:,} points")
    return notes + _notes(outside=0, drawn=0, missing=missing)


def _scale(domain: tuple[float, float]) -> alt.Scale:
    return alt.Scale(domain=list(domain), nice=False, zero=False)


def _depth_axis() -> alt.X:
    return alt.X(
        "depth:Q", title=DEPTH_TITLE, scale=_scale((-0.03, 1.03)), axis=alt.Axis(tickCount=6)
    )


def _layer_axis(n_layers: int, *, labels: bool) -> alt.X:
    step = max(1, math.ceil(n_layers / 20))
    axis = alt.Axis(
        values=list(range(0, n_layers, step)), labels=labels, ticks=labels, grid=False, format="d"
    )
    scale = _scale((-0.5, n_layers - 0.5))
    return alt.X("place_x:Q", title="Layer" if labels else None, scale=scale, axis=axis)


def _shared_limits(rows: pl.DataFrame, names: Sequence[str]) -> tuple[float, float]:
    """Limits for several columns: their intervals, and layer means without exception."""
    intervals = pl.concat([_with_intervals(rows, name) for name in names])
    values = pl.concat([rows[name].cast(pl.Float64).rename("value") for name in names])
    means = layer_means(rows, *names)
    include = [0.0, *(value for name in names for value in means[name])]
    return _limits(intervals, required=values, include=include)


def _share_limits(rows: pl.DataFrame, layers: pl.DataFrame) -> tuple[float, float]:
    """Room for the heads' shares on top tokens and for the lines of both panels.

    Not for the heads on all tokens, whose ratios have no scale, and never beyond SHARE_BOUNDS.
    """
    top = rows.filter((pl.col("selection") == "top") & (pl.col("direct_effect") > 0))
    lines = _long_shares(layers)["share"].drop_nulls()
    inner = lines.quantile(0.02), lines.quantile(0.98)
    include = [0.0, 0.5, *(value for value in inner if value is not None)]
    shares = top["from_norm_share"] if top.height else lines
    low, high = _limits(shares, include=include, keep=0.96, reach=0.1)
    return max(low, SHARE_BOUNDS[0]), min(high, SHARE_BOUNDS[1])


# Marks


def _chart(rows: pl.DataFrame) -> alt.Chart:
    # Inline values, because altair counts the rows of a data frame and refuses more than 5000.
    return alt.Chart(alt.Data(values=rows.to_dicts()))


def _dots(points: pl.DataFrame) -> alt.Chart:
    """Filled points, the smaller and fainter the more there are; triangles stand out."""
    crowd = points.height
    size = 34 if crowd <= 150 else 22 if crowd <= 800 else 14
    opacity = 0.75 if crowd <= 150 else 0.6 if crowd <= 800 else 0.35
    ordinary = alt.when(alt.FieldOneOfPredicate(field="edge", oneOf=[INSIDE, NEGATIVE]))
    dots = _chart(points).mark_point(filled=True)
    return dots.encode(
        size=ordinary.then(alt.value(size)).otherwise(alt.value(2 * size)),
        opacity=ordinary.then(alt.value(opacity)).otherwise(alt.value(1)),
    )


def _rule(value: float) -> alt.Chart:
    line = alt.Chart(alt.Data(values=[{"level": value}]))
    return line.mark_rule(color=GREY, strokeWidth=1).encode(y="level:Q")


def _model_colour(models: Sequence[str]) -> alt.Color:
    scale = alt.Scale(domain=list(models), range=list(COLOURS))
    if len(models) > len(COLOURS):
        scale = alt.Scale(domain=list(models), scheme="tableau20")
    legend = alt.Legend(symbolOpacity=1, symbolType="circle", symbolSize=70, symbolStrokeWidth=0)
    return alt.Color("model:N", title="Model", scale=scale, legend=legend)


def _edge_shape(*parts: pl.DataFrame) -> alt.Shape:
    """Shapes of the edges that occur in these tables; no legend if all lie within the axes."""
    seen = [edge for edge in EDGES if any((part["edge"] == edge).any() for part in parts)]
    scale = alt.Scale(domain=seen, range=[EDGES[edge] for edge in seen])
    legend = None
    if seen != [INSIDE]:
        legend = alt.Legend(symbolFillColor=GREY, symbolStrokeColor=GREY, symbolOpacity=1)
    return alt.Shape("edge:N", title="Head", scale=scale, legend=legend)


def _tip(column: str, title: str | None = None) -> alt.Tooltip:
    words = title or column.replace("_", " ").capitalize()
    return alt.Tooltip(field=column, type="quantitative", title=f"{words} (logits)", format=".3f")


_HEAD_TIP = (
    alt.Tooltip(field="model", type="nominal", title="Model"),
    alt.Tooltip(field="layer", type="quantitative", title="Layer", format="d"),
    alt.Tooltip(field="head", type="quantitative", title="Head", format="d"),
    alt.Tooltip(field="n_tokens", type="quantitative", title="Tokens", format=",d"),
)


def _interval_tip(column: str, title: str, *, unit: str = "logits") -> list[alt.Tooltip]:
    names = {"": unit, "_low": "95 % low", "_high": "95 % high"}
    return [
        alt.Tooltip(
            field=f"{column}{end}", type="quantitative", title=f"{title} ({note})", format=".3f"
        )
        for end, note in names.items()
    ]


# Panels


def _no_repair_line(
    x_domain: tuple[float, float], y_domain: tuple[float, float]
) -> list[dict[str, float]]:
    """The two ends of y = -x within the axes (which both contain 0)."""
    start, stop = max(x_domain[0], -y_domain[1]), min(x_domain[1], -y_domain[0])
    return [{"x": start, "y": -start}, {"x": stop, "y": -stop}]


def _effect_panel(
    points: pl.DataFrame,
    ablation: str,
    *,
    x_domain: tuple[float, float],
    y_domain: tuple[float, float],
    last_layer: int,
    shape: alt.Shape,
    first: bool,
    side: int,
) -> alt.LayerChart:
    x = alt.X("direct_effect_drawn:Q", title="Direct effect (logits)", scale=_scale(x_domain))
    title = "Change of the logit when ablated (logits)" if first else None
    y = alt.Y("delta_logit_drawn:Q", title=title, scale=_scale(y_domain))
    colour = _layer_colour(last_layer)
    tooltip = [
        *_HEAD_TIP,
        *_interval_tip("direct_effect", "Direct effect"),
        *_interval_tip("delta_logit", "Change of the logit"),
    ]
    layers: list[alt.Chart] = [_rule(0.0), *_no_repair_marks(x_domain, y_domain, side, named=first)]
    if _bars_fit(points):
        bars = _chart(_bars(points, "delta_logit", y_domain)).mark_rule(
            strokeWidth=0.8, opacity=0.5
        )
        low = y.copy()
        low.shorthand = "delta_logit_low:Q"
        layers.append(bars.encode(x=x, y=low, y2="delta_logit_high", color=colour))
    layers.append(_dots(points).encode(x=x, y=y, color=colour, shape=shape, tooltip=tooltip))
    return alt.LayerChart(layer=layers).properties(
        width=side, height=side, title=f"{ablation.capitalize()} ablation"
    )


def _layer_colour(last_layer: int) -> alt.Color:
    # The palest fifth of viridis does not show on white.
    scale = alt.Scale(
        domain=[0, max(last_layer, 1)], scheme=alt.SchemeParams("viridis", extent=[0, 0.85])
    )
    step = max(1, math.ceil(last_layer / 6))
    legend = alt.Legend(values=list(range(0, last_layer + 1, step)), format="d")
    return alt.Color("layer:Q", title="Layer", scale=scale, legend=legend)


def _no_repair_marks(
    x_domain: tuple[float, float], y_domain: tuple[float, float], side: int, *, named: bool
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
    domain: tuple[float, float],
    shape: alt.Shape,
    first: bool,
) -> alt.LayerChart:
    axis = alt.Axis(format=".0%", tickCount=6)
    words = "from_norm / direct effect (%)" if first else None
    y = alt.Y("from_norm_share_drawn:Q", title=words, scale=_scale(domain), axis=axis)
    colour = _model_colour(models)
    tooltip = [
        *_HEAD_TIP,
        *_interval_tip("from_norm_share", "Share", unit="of 1"),
        *_interval_tip("direct_effect", "Direct effect"),
    ]
    dots = _dots(points).encode(x=_depth_axis(), y=y, color=colour, shape=shape, tooltip=tooltip)
    line = alt.Y("share:Q", title=words, scale=_scale(domain), axis=axis)
    dash = alt.StrokeDash(
        "definition:N",
        title="Line, per layer",
        scale=alt.Scale(domain=list(DEFINITIONS.values()), range=[[1, 0], [5, 3]]),
        legend=alt.Legend(symbolStrokeColor="black", symbolSize=300, labelLimit=260),
    )
    lines = _chart(_long_shares(layers)).mark_line(strokeWidth=2.2, clip=True)
    curves = lines.encode(x=_depth_axis(), y=line, color=colour, strokeDash=dash)
    panel = alt.LayerChart(layer=[_rule(0.0), dots, curves, *_paper_marks(named=first)])
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
    # A white copy beneath keeps the words readable on points.
    halo, name = (
        mark.mark_text(text=text, align="left", dy=-8, fontSize=12, **ink)
        for ink in ({"stroke": "white", "strokeWidth": 4}, {"color": "black"})
    )
    return [rule, halo, name]


def _breakdown_panel(
    points: pl.DataFrame,
    name: str,
    *,
    n_layers: int,
    domain: tuple[float, float],
    shape: alt.Shape,
) -> alt.LayerChart:
    title, colour = EFFECTS[name]
    x = _layer_axis(n_layers, labels=name == list(EFFECTS)[-1])
    axis = alt.Axis(title=title, tickCount=4, minExtent=44)
    y = alt.Y(f"{name}_drawn:Q", scale=_scale(domain), axis=axis)
    tooltip = [*_HEAD_TIP, *_interval_tip(name, " ".join(title).removesuffix(" (logits)"))]
    layers = [_bands(n_layers), _rule(0.0)]
    if _bars_fit(points):
        bars = _chart(_bars(points, name, domain)).mark_rule(color=colour, opacity=0.35)
        low = alt.Y(f"{name}_low:Q", scale=_scale(domain), axis=axis)
        layers.append(bars.encode(x=x, y=low, y2=f"{name}_high"))
    dots = _dots(points).encode(x=x, y=y, color=alt.value(colour), shape=shape, tooltip=tooltip)
    layers += [dots, _mean_bars(points, name, domain), _largest_name(points, name)]
    return alt.LayerChart(layer=layers).properties(width=760, height=110)


def _bands(n_layers: int) -> alt.Chart:
    spans = [{"start": layer - 0.5, "stop": layer + 0.5} for layer in range(1, n_layers, 2)]
    bands = alt.Chart(alt.Data(values=spans)).mark_rect(color="#f2f2f2")
    return bands.encode(x="start:Q", x2="stop:Q")


def _mean_bars(points: pl.DataFrame, name: str, domain: tuple[float, float]) -> alt.Chart:
    means = layer_means(points, name).with_columns(
        start=pl.col("layer") - 0.45, stop=pl.col("layer") + 0.45
    )
    bars = _chart(means).mark_rule(strokeWidth=2.5, color=COLOURS[1])
    return bars.encode(x="start:Q", x2="stop:Q", y=alt.Y(f"{name}:Q", scale=_scale(domain)))


def _largest_name(points: pl.DataFrame, name: str) -> alt.Chart:
    largest = points.sort(pl.col(name).abs(), descending=True, maintain_order=True).head(1)
    word = pl.format("L{}H{}", "layer", "head")
    right = bool((largest["depth"] > 0.5).item())
    label = _chart(largest.with_columns(word=word)).mark_text(
        align="right" if right else "left", dx=-6 if right else 6, dy=-5, fontSize=11
    )
    return label.encode(x="place_x:Q", y=f"{name}_drawn:Q", text="word:N")


def _finish(chart: Any, title: str, subtitle: list[str]) -> Any:
    """The look that all figures share: white, readable, title and subtitle at the left."""
    heading = alt.TitleParams(
        title,
        subtitle=subtitle,
        anchor="start",
        fontSize=16,
        subtitleFontSize=12,
        subtitleColor="#444444",
        offset=14,
    )
    return (
        chart.properties(title=heading, background="white", padding=12)
        .configure(font="Arial, Liberation Sans, sans-serif")
        .configure_view(stroke=None)
        .configure_axis(
            labelFontSize=12, titleFontSize=13, titleFontWeight="normal", gridColor="#eeeeee"
        )
        .configure_legend(labelFontSize=12, titleFontSize=12, labelLimit=260)
        .configure_title(fontSize=13, fontWeight="bold")
    )
