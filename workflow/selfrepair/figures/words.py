"""Words around a chart: title and notes, headings of panels, tooltips, pieces of captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from ..formats import Unit, listed, with_interval
from ..vocabulary import TOP_SHARE, bounded
from .axes import Span, n_beyond, n_cut
from .rows import estimate, summary_rows

# How texts call the top tokens of each head (docs/method.md section 4).
TOP_TOKENS = f"each head's top {100 * TOP_SHARE:g} % of tokens"
LARGEST = f"the {100 * TOP_SHARE:g} % with its largest direct effect"
# The tokens that a head's numbers are means over, whether they are all of these or drawn from them.
FROM_TOP_TOKENS = f"tokens from each head's top {100 * TOP_SHARE:g} %"
FROM_LARGEST = f"tokens from {LARGEST}"
NOT_MAPPED = (
    "Not measured: no ablation of this study keeps a map of who repairs (map: true of an ablation in the"
    " config)."
)
REPAIR = (
    "Self-repair is what later parts of the model make up for once a head is ablated: the change of"
    " the target token's logit less the change of the head's own direct effect on it."
)


# Around the chart


def titled(chart: Any, title: str, *lines: str) -> Any:
    """The chart, with its title and lines of smaller words above it."""
    chart.title = alt.Title(title, subtitle=list(lines))
    return chart


def heading(title: str, *lines: str) -> alt.Title:
    """The title of a single panel over lines of smaller words; `marks.facets` needs none."""
    look: Any = {"anchor": "middle", "fontSize": 13, "offset": 6, "subtitleFontSize": 11}
    return alt.Title(title, subtitle=list(lines), **look)


def notes(
    points: pl.DataFrame, *bars: Span, missing: int = 0, cut: int = 0, things: str = "points"
) -> list[str]:
    """What is beyond the axes (if `axes.placed`), cut or missing: a line each, none if nothing is.

    bars: the axes along which intervals are drawn; cut: further intervals that are.
    """
    beyond = n_beyond(points) if "edge" in points.columns else 0
    cut += sum(n_cut(points, span) for span in bars)
    counted = {
        f"Beyond the axes, triangles at the edge: {beyond:,} of {points.height:,} {things}": beyond,
        f"Interval bars cut at the axis: {cut:,}": cut,
        f"Rows of the table without a finite value, not drawn: {missing:,}": missing,
    }
    return [words for words, count in counted.items() if count]


def notes_of(
    panels: Sequence[tuple[pl.DataFrame, Span]], *, missing: int, bars: bool = True
) -> list[str]:
    """`notes` of several panels, each with the axis along which intervals are drawn, if there are `bars`."""
    cut = sum(n_cut(points, span) for points, span in panels) * bars
    return notes(
        pl.concat([points.select("edge") for points, _ in panels]), missing=missing, cut=cut
    )


def left_out(heads: pl.DataFrame) -> list[str]:
    """How many heads of the table were ablated, if not all: a line, or none."""
    every, ablated = (
        rows.select("model", "layer", "head").n_unique()
        for rows in (heads, heads.filter(pl.col("n_tokens").is_not_null()))
    )
    return [f"Ablated: {ablated:,} of {every:,} heads"] * (ablated < every)


def left_out_groups(groups: Sequence[str]) -> list[str]:
    """Groups of layers that have no mean, because not every head of theirs was ablated: a line, or none."""
    return [f"Left out, as not every head was ablated: {listed(groups)}"] * bool(groups)


# Names and numbers


def number_of(rows: pl.DataFrame, heads: pl.DataFrame) -> str:
    """How many of the table's heads the rows are of: 270 in all, or 135 of 270."""
    shown, every = (table.select("model", "layer", "head").n_unique() for table in (rows, heads))
    return f"{shown:,} in all" if shown == every else f"{shown:,} of {every:,}"


def head_name(head: Mapping[str, Any]) -> str:
    return f"Layer {head['layer']}, head {head['head']}"


def named_heads(heads: Sequence[Mapping[str, Any]]) -> str:
    """head L2H1, or heads L2H1, L3H0 and L3H2."""
    names = list(dict.fromkeys(f"L{head['layer']}H{head['head']}" for head in heads))
    return f"head{'s' * (len(names) > 1)} {listed(names)}"


def amount(values: pl.Series) -> str:
    """1,234, or 200 to 1,234."""
    return " to ".join(f"{value:,}" for value in sorted({int(values.min()), int(values.max())}))  # type: ignore[arg-type]


def sample(rows: pl.DataFrame, *, unit: str = "head") -> str:
    """The tokens and prompts that the rows' values are means over: a number, or from fewest to most."""
    tokens, prompts = amount(rows["n_tokens"]), amount(rows["n_prompts"])
    return f"{tokens} tokens per {unit}, {prompts} prompts"


def tokens_per_head(rows: pl.DataFrame, *panel: str) -> str:
    """The same of rows that are single tokens; `panel` are columns that repeat a head's tokens."""
    counts = rows.group_by("layer", "head", *panel).len()["len"]
    return f"{amount(counts)} tokens per head, {rows['prompt'].n_unique():,} prompts"


def estimated(row: Mapping[str, Any] | None, *, unit: Unit = "share") -> str:
    """The value of a row of `rows.estimate` with its interval, as "57 % [53, 60]"."""
    if row is None or row["value"] is None:
        return "not estimated"
    return with_interval(row["value"], row["low"], row["high"], unit=unit)


def told(
    figure: str,
    summaries: pl.DataFrame,
    rows: pl.DataFrame,
    quantity: str,
    *,
    unit: Unit = "share",
    **keys: Any,
) -> str:
    """`estimated`, of the only estimate with these keys that the experiment of this figure has of the
    rows' model. Raises as `summary_rows`."""
    found = summary_rows(figure, summaries, rows["model"][0], experiment=figure, quantity=quantity)
    return estimated(estimate(found, **keys), unit=unit)


# Tooltips

# What a column is called, where its name does not say it.
TITLES = {
    "self_repair": "Self-repair",
    "mlp_layer": "MLP of layer",
    "n_tokens": "Tokens",
    "n_prompts": "Prompts",
    "n_heads": "Heads",
    "name": "Head",
    "ablation_name": "Ablation",
    "kind_name": "Second head",
}


def tips(rows: pl.DataFrame, *columns: str | Span, **titles: str) -> list[alt.Tooltip]:
    """A line per column of the rows, or per axis, under its title: words, a whole number, or a number with the
    ends of its interval, if the rows have them. titles: of further columns; by default the column's name, in
    logits if it is a fraction. A title that ends in (%) is of a share.
    """
    spans = {span.column: span.words for span in columns if isinstance(span, Span)}
    names = [column.column if isinstance(column, Span) else column for column in columns]
    titles, lines = spans | titles, []
    for column in dict.fromkeys([*names, *titles]):
        kind = rows.schema[column]
        named = TITLES.get(column, column.replace("_", " ").capitalize())
        title = titles.get(column, f"{named} (logits)" if kind.is_float() else named)
        about = title.rpartition(" (")[0] or title
        number = ",d" if kind.is_integer() else ".1%" if "(%)" in title else ".3f"
        look: dict[str, Any] = {"type": "quantitative", "format": number}
        look = look if kind.is_numeric() else {"type": "nominal"}
        ends = zip(bounded(column), ("", " (95 % low)", " (95 % high)"), strict=True)
        lines += [
            alt.Tooltip(field=end, title=f"{about}{of}" if of else title, **look)
            for end, of in ends
            if end in rows.columns
        ]
    return lines


HEAD = ("model", "layer", "head", "n_tokens")
