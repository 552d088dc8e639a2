"""The claims as one page, in Markdown and in HTML. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from jinja2 import DictLoader, Environment, StrictUndefined

from ..inert import inert_line
from . import overview
from .claims import NOT_SUPPORTED, SUPPORTED, UNDECIDED
from .judge import estimate

# Where the figure of a claim lies, seen from the page: by model and figure.
FigurePaths = Mapping[str, Mapping[str, str]]
# What a reader must know of each model to read its numbers.
Notes = Mapping[str, Sequence[str]]
NO_NOTES: Notes = {}

_HOW = (
    "Each verdict follows from a rule that stands in the code, the same for every model: supported if "
    "the whole 95 % bootstrap interval over prompts lies where the claim holds, not supported if none "
    "of it does, else undecided. Unless a row says otherwise: resample ablation, each head's top 2 % of "
    "tokens by direct effect, and shares of an effect are ratios of means. By the paper's definition "
    "such a share is the mean of per-token shares of the direct effect, clipped to 0 to 1."
)

_MARKDOWN = """\
# {{ title }}

{{ how }}

{% include "overview" %}
{% for model, rows in models %}
## {{ model }}: {{ tally(rows) }}

{% for note in notes.get(model, ()) %}
- {{ note }}
{% if loop.last %}

{% endif %}
{% endfor %}
| claim of the paper | measured | value | paper's definition | holds if | verdict | figure |
|---|---|---|---|---|---|---|
{% for row in rows -%}
| {{ row.claim }} | {{ row.measured }} | {{ row.shown }} | {{ row.shown_clipped }} \
| {{ row.rule }} | **{{ row.verdict }}** | [{{ row.figure }}]({{ row.path }}) |
{% endfor %}

{{ footing(rows) }}

{% endfor -%}
"""

_HTML = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="UTF-8">
<title>{{ title }}</title>
<style>
body { margin: 2em auto; max-width: 80em; padding: 0 1em; color: #222; background: white;
  font-family: Arial, "Liberation Sans", sans-serif; line-height: 1.45; }
p { max-width: 60em; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: 0.5em 0.7em; border-top: 1px solid #ddd; }
td.value { white-space: nowrap; }
small { display: block; color: #555; white-space: normal; }
.verdict { font-weight: bold; white-space: nowrap; }
.supported { color: #00664b; } .not-supported { color: #a34300; } .undecided { color: #555; }
figure { margin: 2em 0; } figure img { max-width: 100%; }
.wide { overflow-x: auto; } .matrix { font-size: 0.9em; } .matrix th { min-width: 7em; }
.matrix tbody th { font-weight: normal; position: sticky; left: 0; background: white; min-width: 14em; }
.matrix .verdict { font-weight: normal; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>{{ how }}</p>
{% include "overview" %}
{% for model, rows in models %}
<h2>{{ model }}: {{ tally(rows) }}</h2>
{% for note in notes.get(model, ()) %}
<p>{{ note }}</p>
{% endfor %}
<table>
<thead><tr><th>claim of the paper</th><th>measured</th><th>value</th><th>holds if</th><th>verdict</th>
<th>figure</th></tr></thead>
<tbody>
{% for row in rows -%}
<tr id="{{ model }}-{{ row.id }}"><td>{{ row.claim }}<small>{{ row.source }}</small></td>
<td>{{ row.measured }}<small>{{ row.n_prompts }} prompts, {{ "{:,}".format(row.n_tokens) }} {{ row.counted }}</small></td>
<td class="value">{{ row.shown }}
{%- if row.shown_clipped %}<small>paper's definition: {{ row.shown_clipped }}</small>{% endif %}</td>
<td>{{ row.rule }}</td>
<td class="verdict {{ row.verdict.replace(" ", "-") }}">{{ row.verdict }}</td>
<td><a href="#{{ "all" if row.figure in shared else model }}-{{ row.figure }}">{{ row.figure }}</a></td></tr>
{% endfor -%}
</tbody>
</table>
{% for figure, path in figures(rows) if figure not in shared -%}
<figure id="{{ model }}-{{ figure }}"><a href="{{ path }}.html"><img src="{{ path }}.png" alt="Figure {{ figure }} of {{ model }}"></a></figure>
{% endfor -%}
{% endfor -%}
</body>
</html>
"""


def markdown(
    claims: pl.DataFrame,
    *,
    study: str,
    paths: FigurePaths,
    over_models: pl.DataFrame | None = None,
    notes: Notes = NO_NOTES,
) -> str:
    """The page in Markdown; paths: of figures without their ending; over_models: the claims over models, shown
    of several; notes: shown under each model."""
    titles = [name for name in ("model", "control_of") if name in claims.columns]
    return _render(
        {"page": _MARKDOWN, "overview": overview.MARKDOWN},
        claims.with_columns(pl.col(titles).map_elements(inert_line, return_dtype=pl.String)),
        over_models,
        {inert_line(model): own for model, own in paths.items()},
        ending=".png",
        escape=False,
        study=study,
        notes={inert_line(model): [*map(inert_line, own)] for model, own in notes.items()},
    )


def page(
    claims: pl.DataFrame,
    *,
    study: str,
    paths: FigurePaths,
    over_models: pl.DataFrame | None = None,
    notes: Notes = NO_NOTES,
) -> str:
    """The page in HTML, with every figure that a claim refers to, those of all models once."""
    return _render(
        {"page": _HTML, "overview": overview.HTML},
        claims,
        over_models,
        paths,
        ending="",
        escape=True,
        study=study,
        notes=notes,
    )


def _render(
    templates: Mapping[str, str],
    claims: pl.DataFrame,
    over_models: pl.DataFrame | None,
    paths: FigurePaths,
    *,
    ending: str,
    escape: bool,
    study: str,
    notes: Notes,
) -> str:
    environment = Environment(
        loader=DictLoader(templates),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    models = [
        (model, [_row(row, paths[model][row["figure"]] + ending) for row in rows.to_dicts()])
        for (model,), rows in claims.group_by("model", maintain_order=True)
    ]
    shown = overview.overview(claims, over_models)
    first = paths[models[0][0]]
    for row in shown["over"]:
        row["path"] = first[row["figure"]] + ending
    return environment.get_template("page").render(
        title=f"Claims of the paper, measured: study {study}",
        how=_HOW,
        over_how=overview.OVER_HOW,
        key=overview.KEY,
        overview=shown,
        # Figures of all models, which stand once, before the models.
        shared=_shared([row["figure"] for row in shown["over"]], claims, paths),
        models=models,
        notes=notes,
        tally=_tally,
        footing=_footing,
        figures=lambda rows: dict((row["figure"], row["path"]) for row in rows).items(),
    )


def _shared(over: Sequence[str], claims: pl.DataFrame, paths: FigurePaths) -> dict[str, str]:
    """The figures that several models have in common, by their paths; over: those of claims over models."""
    models = claims["model"].unique(maintain_order=True).to_list()
    if len(models) < 2:
        return {}
    figures = dict.fromkeys([*over, *claims["figure"]])
    found = {figure: {paths[model][figure] for model in models} for figure in figures}
    return {figure: places.pop() for figure, places in found.items() if len(places) == 1}


def _row(row: dict[str, Any], path: str) -> dict[str, Any]:
    """A row as the templates read it; path: of its figure."""
    shown = {"shown": estimate(row), "shown_clipped": estimate(row, clipped=True)}
    return row | shown | {"path": path}


def _tally(rows: list[dict[str, Any]]) -> str:
    """How many claims got each verdict, in words."""
    counts = {
        verdict: sum(row["verdict"] == verdict for row in rows)
        for verdict in (SUPPORTED, UNDECIDED, NOT_SUPPORTED)
    }
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)


def _footing(rows: list[dict[str, Any]]) -> str:
    """What the values rest on."""
    sizes = {(row["n_prompts"], row["n_tokens"]) for row in rows if row["n_tokens"]}
    if not sizes:
        return "Nothing was measured."
    prompts, tokens = (sorted({size[place] for size in sizes}) for place in (0, 1))
    ranges = [
        f"{each[0]:,}" if each[0] == each[-1] else f"{each[0]:,} to {each[-1]:,}"
        for each in (prompts, tokens)
    ]
    return (
        f"Each value rests on {ranges[0]} prompts and {ranges[1]} tokens (E1 to E5) or instances, a head "
        "on one of its tokens (E7 to E11)."
    )
