"""What the figures share: rows, axes, marks, tooltips, captions, and saving.

Nothing is cropped silently: an axis shows every value unless a few would stretch it beyond use;
those are then triangles at its edge, and the subtitle counts them. Rows without a finite value are
left out, never drawn as 0, and counted too.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import polars as pl
import vl_convert

from ..errors import InputError

Limits = tuple[float, float]
# The version of Vega-Lite that altair writes, as vl_convert names it.
VEGA_LITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
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
# More points than this in one panel are drawn as a density.
MOST_POINTS = 3000
DENSITY_CELLS = 48
# Words of several lines in a panel: the height of a line, and their style.
LINE = 13
LINES: dict[str, Any] = {"lineBreak": "\n", "lineHeight": LINE}
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
SUMMARY_COLUMNS = (
    *("model", "experiment", "quantity", "layer", "head", "group"),
    *("value", "low", "high", "n_prompts", "n_tokens"),
)


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


# Unpacks the library and the figure, gzip in base64 and a fraction of their size, and draws.
_LOADER = """
const unpacked = (id) => {
  const text = document.getElementById(id).textContent;
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
};
(async () => {
  const script = document.createElement("script");
  script.textContent = await unpacked("vega");
  document.head.append(script);
  vegaEmbed("#figure", JSON.parse(await unpacked("spec")), %s);
})();
"""


@cache
def _packed_vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    # The stub forgets that the snippet is optional (vl-convert 1.9).
    return _packed(vl_convert.javascript_bundle(vl_version=VEGA_LITE))  # type: ignore[call-arg]


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _page(spec: dict[str, Any], caption: str) -> bytes:
    # The menu's editor entry would send the data to a web site.
    actions = {"export": True, "source": True, "compiled": False, "editor": False}
    options = json.dumps({"mode": "vega-lite", "actions": actions})
    data = _packed(json.dumps(spec, allow_nan=False))
    title = html.escape(spec["title"]["text"])
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="UTF-8">\n'
        f"<title>{title}</title>\n<style>\n"
        "body { margin: 2em; font-family: Arial, sans-serif; background: white; color: #222; }\n"
        "figure { margin: 0; }\n"
        "figcaption { max-width: 46em; margin-top: 1em; line-height: 1.45; }\n"
        "</style>\n</head>\n<body>\n<figure>\n"
        f'<div id="figure"></div>\n<figcaption>{html.escape(caption)}</figcaption>\n</figure>\n'
        f'<script type="text/plain" id="vega">{_packed_vega()}</script>\n'
        f'<script type="text/plain" id="spec">{data}</script>\n'
        f"<script>{_LOADER % options}</script>\n</body>\n</html>\n"
    )
    return page.encode()


# Rows


def table_rows(
    figure: str,
    table: pl.DataFrame,
    name: str,
    *,
    columns: Sequence[str],
    finite: Sequence[str],
    one_model: bool = True,
) -> tuple[pl.DataFrame, int]:
    """The rows of a figure's table in which `finite` are finite, and how many are not.

    Raises:
        InputError: a column is missing, no row is left, or several models where one is taken.
    """
    check_columns(figure, table, name, columns)
    numbers = [pl.col(column).cast(pl.Float64) for column in finite]
    kept = table.filter(pl.all_horizontal(number.is_finite() for number in numbers))
    if kept.is_empty():
        raise InputError(
            f"{figure}: the {name} table has no rows with finite {', '.join(finite)};"
            " run its experiment on more prompts, and for this model"
        )
    models = models_of(kept)
    if one_model and len(models) != 1:
        raise InputError(
            f"{figure}: takes one model, got {listed(models)}; filter the {name} table"
        )
    # JSON has no NaN: what is missing beside the values drawn is null.
    kept = kept.select(columns).with_columns(pl.selectors.float().fill_nan(None))
    return kept, table.height - kept.height


def check_columns(figure: str, table: pl.DataFrame, name: str, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(
            f"{figure}: the {name} table has no column {', '.join(missing)};"
            " write it with this version of the workflow"
        )


def summary_rows(
    figure: str, summaries: pl.DataFrame, model: str, *, experiment: str, quantity: str
) -> pl.DataFrame:
    """One model's estimates of a quantity.

    Raises:
        InputError: a column is missing, or the table has no such rows.
    """
    check_columns(figure, summaries, "summaries", SUMMARY_COLUMNS)
    wanted = summaries.filter(model=model, experiment=experiment, quantity=quantity)
    if wanted.is_empty():
        raise InputError(
            f"{figure}: the summaries table has no {quantity} of experiment {experiment} for"
            f" {model}; write both tables in one run of the experiment"
        )
    return wanted.with_columns(pl.selectors.float().fill_nan(None))


def estimate(summary: pl.DataFrame, **keys: Any) -> Mapping[str, Any] | None:
    """The one row with these keys; None where there is none or it has no value."""
    rows = summary.filter(**keys).drop_nulls("value").to_dicts()
    return rows[0] if rows else None


def heads_in(rows: pl.DataFrame, *keys: str) -> list[dict[str, Any]]:
    """The heads of a table, a panel each, in order; `keys` split them further."""
    names = ["layer", "head", *keys]
    return rows.select(names).unique().sort(names).to_dicts()


def models_of(rows: pl.DataFrame) -> list[str]:
    return rows["model"].unique(maintain_order=True).to_list()


def count_of(heads: pl.DataFrame, name: str) -> int:
    """Number of layers or heads, from the largest index in the table."""
    return int(heads[name].cast(pl.Int64).max()) + 1  # type: ignore[arg-type]


def side_by_side(n_heads: int) -> pl.Expr:
    """A head's place within its layer's unit of the axis."""
    return pl.col("layer") + (pl.col("head") - (n_heads - 1) / 2) * 0.8 / n_heads


def with_intervals(rows: pl.DataFrame, name: str) -> pl.Series:
    parts = [rows[column].cast(pl.Float64) for column in (name, f"{name}_low", f"{name}_high")]
    return pl.concat(part.drop_nulls().rename("value") for part in parts)


# Axes


def axis_limits(
    values: pl.Series,
    *,
    include: Iterable[float] = (0.0,),
    required: pl.Series | None = None,
    keep: float = 0.99,
    reach: float = 1.5,
) -> Limits:
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


def placed(rows: pl.DataFrame, column: str, domain: Limits) -> pl.DataFrame:
    """Adds `<column>_drawn`, moved to the axis' edge where beyond, and `edge` (of EDGES)."""
    low, high = domain
    value = pl.col(column)
    edge = pl.when(value > high).then(pl.lit(ABOVE)).when(value < low).then(pl.lit(BELOW))
    return rows.with_columns(
        value.clip(low, high).alias(f"{column}_drawn"),
        edge=edge.otherwise(pl.lit(INSIDE)),
    )


def placed_on_both(
    rows: pl.DataFrame,
    x: str = "direct_effect",
    y: str = "delta_logit",
    *,
    x_domain: Limits,
    y_domain: Limits,
) -> pl.DataFrame:
    """`placed` along y and, where that is within its axis, along x."""
    turned = {ABOVE: RIGHT, BELOW: LEFT}
    across = placed(rows, x, x_domain)
    side = pl.col("edge").replace(turned)
    both = placed(across.with_columns(side=side).drop("edge"), y, y_domain)
    edge = pl.when(pl.col("edge") == INSIDE).then(pl.col("side")).otherwise(pl.col("edge"))
    return both.with_columns(edge=edge).drop("side")


def interval_bars(rows: pl.DataFrame, column: str, domain: Limits) -> pl.DataFrame:
    """The intervals of the points within the axes, their ends cut at the axis."""
    ends = [pl.col(f"{column}_{end}").clip(*domain) for end in ("low", "high")]
    bounded = pl.all_horizontal(end.is_not_null() for end in ends)
    return rows.filter(pl.col("edge") == INSIDE, bounded).with_columns(ends)


def n_cut(rows: pl.DataFrame, column: str, domain: Limits) -> int:
    """How many of `interval_bars` reach beyond the axis."""
    low, high = pl.col(f"{column}_low") < domain[0], pl.col(f"{column}_high") > domain[1]
    return rows.filter(pl.col("edge") == INSIDE, low | high).height


def bars_fit(rows: pl.DataFrame, *panel: str) -> bool:
    sizes = rows.group_by(panel).len()["len"] if panel else pl.Series([rows.height])
    return int(sizes.max()) <= MOST_BARS  # type: ignore[arg-type]


def n_outside(points: pl.DataFrame) -> int:
    return points.filter(~pl.col("edge").is_in([INSIDE, NEGATIVE])).height


def axis_notes(
    *, outside: int, drawn: int, missing: int, cut: int = 0, things: str = "points"
) -> list[str]:
    notes = []
    if outside:
        notes.append(f"Beyond the axes, triangles at the edge: {outside:,} of {drawn:,} {things}")
    if cut:
        notes.append(f"Interval bars cut at the axis: {cut:,}")
    if missing:
        notes.append(f"Rows of the table without a finite value, not drawn: {missing:,}")
    return notes


def axis_scale(domain: Limits) -> alt.Scale:
    return alt.Scale(domain=list(domain), nice=False, zero=False)


@dataclass(frozen=True)
class Span:
    """An axis of a column that `placed` has moved to the axis' edge where it lies beyond."""

    column: str
    title: str | list[str] | None
    domain: Limits

    def across(self, field: str | None = None) -> alt.X:
        return alt.X(self._field(field), title=self.title, scale=axis_scale(self.domain))

    def up(self, field: str | None = None) -> alt.Y:
        return alt.Y(self._field(field), title=self.title, scale=axis_scale(self.domain))

    def _field(self, field: str | None) -> str:
        return f"{field or f'{self.column}_drawn'}:Q"


def layer_axis(n_layers: int, *, labels: bool, first: int = 0, title: str = "Layer") -> alt.X:
    step = max(1, math.ceil((n_layers - first) / 20))
    axis = alt.Axis(
        values=list(range(first, n_layers, step)),
        labels=labels,
        ticks=labels,
        grid=False,
        format="d",
    )
    scale = axis_scale((first - 0.5, n_layers - 0.5))
    return alt.X("place_x:Q", title=title if labels else None, scale=scale, axis=axis)


# Marks


def chart_of(rows: pl.DataFrame) -> alt.Chart:
    # Inline values, because altair counts the rows of a data frame and refuses more than 5000.
    return alt.Chart(alt.Data(values=rows.to_dicts()))


def point_marks(points: pl.DataFrame) -> alt.Chart:
    """Filled points, the smaller and fainter the more there are; triangles stand out."""
    crowd = points.height
    size = 34 if crowd <= 150 else 22 if crowd <= 800 else 14
    opacity = 0.75 if crowd <= 150 else 0.6 if crowd <= 800 else 0.35
    ordinary = alt.when(alt.FieldOneOfPredicate(field="edge", oneOf=[INSIDE, NEGATIVE]))
    # Opacity of the fill, not of the mark: a PDF makes a group of its own for each of the latter.
    dots = chart_of(points).mark_point(filled=True, opacity=1)
    return dots.encode(
        size=ordinary.then(alt.value(size)).otherwise(alt.value(2 * size)),
        fillOpacity=ordinary.then(alt.value(opacity)).otherwise(alt.value(1)),
    )


def level_rule(value: float) -> alt.Chart:
    line = alt.Chart(alt.Data(values=[{"level": value}]))
    return line.mark_rule(color=GREY, strokeWidth=1).encode(y="level:Q")


def edge_shape(*parts: pl.DataFrame, title: str = "Head") -> alt.Shape:
    """Shapes of the edges that occur in these tables; no legend if all lie within the axes."""
    seen = [edge for edge in EDGES if any((part["edge"] == edge).any() for part in parts)]
    scale = alt.Scale(domain=seen, range=[EDGES[edge] for edge in seen])
    legend = None
    if seen != [INSIDE]:
        legend = alt.Legend(symbolFillColor=GREY, symbolStrokeColor=GREY, symbolOpacity=1)
    return alt.Shape("edge:N", title=title, scale=scale, legend=legend)


def layer_colour(last_layer: int) -> alt.Color:
    # The palest fifth of viridis does not show on white.
    scale = alt.Scale(
        domain=[0, max(last_layer, 1)], scheme=alt.SchemeParams("viridis", extent=[0, 0.85])
    )
    step = max(1, math.ceil(last_layer / 6))
    legend = alt.Legend(values=list(range(0, last_layer + 1, step)), format="d")
    return alt.Color("layer:Q", title="Layer", scale=scale, legend=legend)


def layer_bands(n_layers: int, *, first: int = 0) -> alt.Chart:
    odd = range(first + 1 - first % 2, n_layers, 2)
    spans = [{"start": layer - 0.5, "stop": layer + 0.5} for layer in odd]
    bands = alt.Chart(alt.Data(values=spans)).mark_rect(color="#f2f2f2")
    return bands.encode(x="start:Q", x2="stop:Q")


def haloed(mark: alt.Chart, **text: Any) -> list[alt.Chart]:
    """Words on a white copy of themselves, which keeps them readable on points."""
    inks = ({"stroke": "white", "strokeWidth": 4}, {"color": "black"})
    styles: list[dict[str, Any]] = [{"fontSize": 11} | text | ink for ink in inks]
    return [mark.mark_text(**style) for style in styles]


def words_at(words: str, place: tuple[float, float], domains: tuple[Limits, Limits]) -> alt.Chart:
    """Words at a place in the panel, in the units of its axes; the caller gives them their mark."""
    row = {"x": place[0], "y": place[1], "words": words}
    return alt.Chart(alt.Data(values=[row])).encode(
        x=alt.X("x:Q", scale=axis_scale(domains[0])),
        y=alt.Y("y:Q", scale=axis_scale(domains[1])),
        text="words:N",
    )


def line_marks(rows: Sequence[Mapping[str, float]], **style: Any) -> alt.Chart:
    """A line through points x, y."""
    line = alt.Chart(alt.Data(values=[dict(row) for row in rows]))
    look: dict[str, Any] = {"color": "black", "strokeWidth": 1.2} | style
    return line.mark_line(**look).encode(x="x:Q", y="y:Q")


def across_rule(value: float, **style: Any) -> alt.Chart:
    """A vertical rule, the counterpart of `level_rule`."""
    line = alt.Chart(alt.Data(values=[{"place": value}]))
    look: dict[str, Any] = {"color": GREY, "strokeWidth": 1} | style
    return line.mark_rule(**look).encode(x="place:Q")


def diagonal(x_domain: Limits, y_domain: Limits) -> alt.Chart:
    """The line y = x within the axes."""
    ends = max(x_domain[0], y_domain[0]), min(x_domain[1], y_domain[1])
    return line_marks([{"x": end, "y": end} for end in ends], strokeDash=[5, 3])


def diverging_colour(
    column: str, title: str | list[str], values: pl.Series
) -> tuple[alt.Color, int]:
    """A scale symmetrical about 0, and how many values lie beyond it and take its last colour."""
    numbers = values.drop_nulls().cast(pl.Float64)
    numbers = numbers.filter(numbers.is_finite())
    reach = max(map(abs, axis_limits(numbers, keep=0.9, reach=0.5))) if len(numbers) else 1.0
    # Through grey, not white: a point near 0 must show on the page.
    scale = alt.Scale(
        domain=[-reach, 0, reach],
        range=[COLOURS[1], "#cfcfcf", COLOURS[0]],
        interpolate="lab",
        clamp=True,
    )
    legend = alt.Legend(gradientLength=140, tickCount=5)
    beyond = int((numbers.abs() > reach).sum())
    return alt.Color(f"{column}:Q", title=title, scale=scale, legend=legend), beyond


def density(
    rows: pl.DataFrame, x: str, y: str, *, x_domain: Limits, y_domain: Limits
) -> pl.DataFrame:
    """Counts of the rows within the axes, per cell; cells without any are left out."""
    cells = (DENSITY_CELLS, DENSITY_CELLS)
    counts, x_edges, y_edges = np.histogram2d(
        rows[x].to_numpy(), rows[y].to_numpy(), bins=cells, range=(x_domain, y_domain)
    )
    column, row = np.nonzero(counts)
    return pl.DataFrame(
        {
            "x_start": x_edges[column],
            "x_stop": x_edges[column + 1],
            "y_start": y_edges[row],
            "y_stop": y_edges[row + 1],
            "count": counts[column, row].astype(int),
        }
    )


def cloud(
    points: pl.DataFrame,
    *,
    x: Span,
    y: Span,
    colour: alt.Color,
    shape: alt.Shape,
    tooltip: Sequence[alt.Tooltip],
    things: str = "Tokens",
) -> list[alt.Chart]:
    """Points of `placed_on_both`, or their density where there are too many for a panel.

    What lies beyond the axes stays a triangle, so that no point is ever lost.
    """
    encoding: dict[str, Any] = {
        "x": x.across(),
        "y": y.up(),
        "color": colour,
        "shape": shape,
        "tooltip": list(tooltip),
    }
    if points.height <= MOST_POINTS:
        return [point_marks(points).encode(**encoding)]
    inside = points.filter(pl.col("edge") == INSIDE)
    cells = density(inside, x.column, y.column, x_domain=x.domain, y_domain=y.domain)
    # Its own channel: `color` belongs to the points of other panels.
    fill = alt.Fill(
        "count:Q",
        title=[things, "per cell"],
        scale=alt.Scale(
            type="log",
            domainMin=1,
            nice=False,
            scheme=alt.SchemeParams("greys", extent=[0.12, 1]),
        ),
        legend=alt.Legend(format=",d", tickCount=4, gradientLength=110),
    )
    start, low = x.across("x_start"), y.up("y_start")
    tip = alt.Tooltip(field="count", type="quantitative", title=things, format=",d")
    rects = chart_of(cells).mark_rect(strokeWidth=0)
    layers = [rects.encode(x=start, x2="x_stop:Q", y=low, y2="y_stop:Q", fill=fill, tooltip=[tip])]
    beyond = points.filter(pl.col("edge") != INSIDE)
    if beyond.height:
        layers.append(point_marks(beyond).encode(**encoding))
    return layers


def percent_axis(**options: Any) -> alt.Axis:
    style: dict[str, Any] = {"format": ".0%", "tickCount": 5} | options
    return alt.Axis(**style)


def panel_grid(panels: Sequence[Any], *, spacing: int = 28) -> alt.ConcatChart:
    return alt.concat(*panels, columns=n_columns(len(panels)), spacing=spacing)


def n_columns(panels: int) -> int:
    return 2 if panels in (2, 4) else min(panels, 3)


# Tooltips


def logits_tip(column: str, title: str | None = None) -> alt.Tooltip:
    words = title or column.replace("_", " ").capitalize()
    return alt.Tooltip(field=column, type="quantitative", title=f"{words} (logits)", format=".3f")


HEAD_TIP = (
    alt.Tooltip(field="model", type="nominal", title="Model"),
    alt.Tooltip(field="layer", type="quantitative", title="Layer", format="d"),
    alt.Tooltip(field="head", type="quantitative", title="Head", format="d"),
    alt.Tooltip(field="n_tokens", type="quantitative", title="Tokens", format=",d"),
)

TOKEN_TIP = (
    alt.Tooltip(field="prompt", type="quantitative", title="Prompt", format="d"),
    alt.Tooltip(field="position", type="quantitative", title="Position", format="d"),
)


def plain_tip(column: str, title: str, format: str = ",d") -> alt.Tooltip:
    return alt.Tooltip(field=column, type="quantitative", title=title, format=format)


def interval_tip(column: str, title: str, *, unit: str = "logits") -> list[alt.Tooltip]:
    names = {"": unit, "_low": "95 % low", "_high": "95 % high"}
    return [
        alt.Tooltip(
            field=f"{column}{end}", type="quantitative", title=f"{title} ({note})", format=".3f"
        )
        for end, note in names.items()
    ]


# The look


def finish(chart: Any, title: str, subtitle: list[str]) -> Any:
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


# Words


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def amount(values: pl.Series) -> str:
    low, high = int(values.min()), int(values.max())  # type: ignore[arg-type]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def title_of(head: Mapping[str, Any], *, several_mlps: bool = False) -> str:
    name = f"Layer {head['layer']}, head {head['head']}"
    return f"{name}; MLP of layer {head['mlp_layer']}" if several_mlps else name


def titled(panel: alt.LayerChart, head: str, note: str | list[str], *, side: int) -> alt.LayerChart:
    """A square panel under its head's name and a line of numbers."""
    words = alt.TitleParams(head, subtitle=note, subtitleFontSize=11, subtitleColor="#444444")
    return panel.properties(width=side, height=side, title=words)


def share_words(row: Mapping[str, Any] | None) -> str:
    """A share with its 95 % interval, as "23 % [15, 31]"."""
    if row is None:
        return "not estimated"
    ends = [row["low"], row["high"]]
    bounds = [] if None in ends else [" [", ", ".join(f"{100 * end:.0f}" for end in ends), "]"]
    return "".join([f"{100 * row['value']:.0f} %", *bounds])


def tokens_per_head(rows: pl.DataFrame, *panel: str) -> str:
    """How many tokens and prompts the rows of each head (and `panel`) stand for, a row per token."""
    counts = rows.group_by("layer", "head", *panel).len()["len"]
    return f"{amount(counts)} tokens per head, in {rows['prompt'].n_unique():,} prompts"


def counted_sample(rows: pl.DataFrame) -> str:
    """The same from the columns that count them."""
    return f"{amount(rows['n_tokens'])} tokens per head, {amount(rows['n_prompts'])} prompts"


def named_heads(heads: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(f"L{head['layer']}H{head['head']}" for head in heads))
    return f"head {names[0]}" if len(names) == 1 else f"heads {listed(names)}"


def crowded_panels(rows: pl.DataFrame, *panel: str) -> pl.Series:
    """Per panel, which these columns tell apart: has it too many points to draw them singly?"""
    sizes = rows.group_by(panel).len()["len"] if panel else pl.Series([rows.height])
    return sizes > MOST_POINTS


def drawn_singly(points: pl.DataFrame, *panel: str) -> pl.DataFrame:
    """The points of `cloud` that are marks of their own, not counts in a cell."""
    size = pl.len().over(panel) if panel else pl.len()
    return points.filter((size <= MOST_POINTS) | (pl.col("edge") != INSIDE))


def density_note(rows: pl.DataFrame, *panel: str) -> list[str]:
    crowded = crowded_panels(rows, *panel)
    if not crowded.any():
        return []
    panels = f"{int(crowded.sum())} of {len(crowded)} panels" if panel else "the panel"
    return [f"More than {MOST_POINTS:,} points, drawn as a density, in {panels}"]


def first_in_row(index: int, panels: int) -> bool:
    return index % n_columns(panels) == 0
