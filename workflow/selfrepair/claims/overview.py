"""The first part of the claims page of a study of several models: claims by models, claims over models, and
each control beside its original. No torch."""

from __future__ import annotations

from typing import Any

import polars as pl

from .claims import NOT_SUPPORTED, SUPPORTED, UNDECIDED
from .judge import estimate
from .over_models import COUNTS, TALLY_RULE

SYMBOLS = {SUPPORTED: "✓", UNDECIDED: "?", NOT_SUPPORTED: "✗"}
KEY = ", ".join(f"{symbol} {verdict}" for verdict, symbol in SYMBOLS.items())

# Both are parts of a page's template; `overview` is what the function of this name gives.
MARKDOWN = """\
{% if overview.rows %}
## Claims by models

Value, 95 % interval and verdict ({{ key }}); the last column says how many models support the claim\
{{ ", controls not counted" if overview.controls }}. What is measured, and the rule, stand in the models' own tables.

| claim of the paper | {% for model in overview.models %}{{ model.heading }} | {% endfor %}supported on |
|---|{% for model in overview.models %}---|{% endfor %}---|
{% for row in overview.rows %}
| {{ row.claim }}{{ row.unit }} | {% for cell in row.cells %}{{ cell.shown }} {{ cell.symbol }} | {% endfor %}{{ row.tally }} |
{% endfor %}

## Claims over models

{{ over_how }}

| claim | measured | value | holds if | verdict | to be known | figure |
|---|---|---|---|---|---|---|
{% for row in overview.over %}
| {{ row.claim }} ({{ row.source }}) | {{ row.measured }} | {{ row.shown }} | {{ row.rule }} | **{{ row.verdict }}** | {{ row.remark }} | [{{ row.figure }}]({{ row.path }}) |
{% endfor %}

{% endif %}
{% for control in overview.controls %}
## Do the claims move? {{ control.model }}, a control of {{ control.original }}

{{ control.summary }}

| claim of the paper | {{ control.original }} | {{ control.model }} | intervals | verdict |
|---|---|---|---|---|
{% for row in control.rows %}
| {{ row.claim }}{{ row.unit }} | {{ row.original }} | {{ row.control }} | {{ row.intervals }} | {{ row.verdict }} |
{% endfor %}

{% endfor %}
"""

HTML = """\
{% if overview.rows %}
<h2>Claims by models</h2>
<p>Value, 95 % interval and verdict; the last column says how many models support the claim\
{{ ", controls not counted" if overview.controls }}. What is measured, and the rule, stand in the models' own tables
below.</p>
<div class="wide"><table class="matrix">
<thead><tr><th>claim of the paper</th>
{% for model in overview.models %}
<th>{{ model.heading }}</th>
{% endfor %}
<th>supported on</th></tr></thead>
<tbody>
{% for row in overview.rows %}
<tr><th>{{ row.claim }}{{ row.unit }}</th>
{% for cell in row.cells %}
<td class="value"><a href="#{{ cell.model }}-{{ row.id }}">{{ cell.value }}</a><small>{{ cell.interval }}</small>
<span class="verdict {{ cell.style }}">{{ cell.symbol }} {{ cell.verdict }}</span></td>
{% endfor %}
<td class="value">{{ row.tally }}</td></tr>
{% endfor %}
</tbody>
</table></div>
<h2>Claims over models</h2>
<p>{{ over_how }}</p>
<table>
<thead><tr><th>claim</th><th>measured</th><th>value</th><th>holds if</th><th>verdict</th><th>figure</th></tr></thead>
<tbody>
{% for row in overview.over %}
<tr id="all-{{ row.id }}"><td>{{ row.claim }}<small>{{ row.source }}</small></td>
<td>{{ row.measured }}<small>{{ row.remark }}</small></td><td class="value">{{ row.shown }}</td>
<td>{{ row.rule }}</td><td class="verdict {{ row.style }}">{{ row.verdict }}</td>
<td><a href="#all-{{ row.figure }}">{{ row.figure }}</a></td></tr>
{% endfor %}
</tbody>
</table>
{% endif %}
{% for control in overview.controls %}
<h2>Do the claims move? {{ control.model }}, a control of {{ control.original }}</h2>
<p>{{ control.summary }}</p>
<table>
<thead><tr><th>claim of the paper</th><th>{{ control.original }}</th><th>{{ control.model }}</th><th>intervals</th>
<th>verdict</th></tr></thead>
<tbody>
{% for row in control.rows %}
<tr><td>{{ row.claim }}{{ row.unit }}</td><td class="value">{{ row.original }}</td>
<td class="value">{{ row.control }}</td><td>{{ row.intervals }}</td>
<td class="{{ "same" if row.same else "verdict" }}">{{ row.verdict }}</td></tr>
{% endfor %}
</tbody>
</table>
{% endfor %}
{% for figure, path in shared.items() %}
<figure id="all-{{ figure }}"><a href="{{ path }}.html"><img src="{{ path }}.png" alt="Figure {{ figure }} of all models"></a></figure>
{% endfor %}
"""

OVER_HOW = (
    "Of all models of the study together, controls left out, by rules that were written before more than one"
    " model was measured. An interval is made of the models' own intervals: it covers that each was measured on a sample of"
    " prompts, not that other models might have been chosen."
)


def overview(claims: pl.DataFrame, over_models: pl.DataFrame | None) -> dict[str, Any]:
    """What the templates show: `models`, `rows`, `over` of two or more models without controls (else empty), and
    `controls`.

    claims: of `judge.judge`; over_models: of `over_models.judge_over_models`.
    """
    titles = claims["model"].unique(maintain_order=True).to_list()
    originals = dict(claims.select("model", "control_of").unique().drop_nulls().iter_rows())
    by_model = {title: claims.filter(model=title).to_dicts() for title in titles}
    controls = [
        _control(title, original, by_model)
        for title, original in originals.items()
        if original in by_model
    ]
    controls.sort(key=lambda control: titles.index(control["model"]))
    own = [title for title in titles if title not in originals]
    if len(own) < 2 or over_models is None:
        return {"models": [], "rows": [], "over": [], "controls": controls}
    shown = [*own, *(title for title in titles if title in originals)]
    tallies = over_models.filter(pl.col("rule") == TALLY_RULE)
    values = over_models.filter(pl.col("rule") != TALLY_RULE)
    return {
        "models": [{"heading": title + " (control)" * (title in originals)} for title in shown],
        "rows": [
            _line(number, tally, {title: by_model[title] for title in shown})
            for number, tally in enumerate(tallies.to_dicts())
        ],
        "over": [
            row | {"shown": estimate(row), "style": _style(row["verdict"])}
            for row in values.to_dicts()
        ],
        "controls": controls,
    }


def _line(
    number: int, tally: dict[str, Any], by_model: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """A claim across models; number: of its row in each."""
    return {
        "id": tally["id"],
        "claim": tally["claim"],
        "unit": _unit(tally),
        "cells": [_cell(title, rows[number]) for title, rows in by_model.items()],
        "tally": _tally(tally),
    }


def _cell(model: str, row: dict[str, Any]) -> dict[str, Any]:
    """A claim about a model; the unit stands beside the claim."""
    value, _, interval = _plain(row).partition(" [")
    verdict = row["verdict"]
    return {
        "model": model,
        "shown": _plain(row),
        "value": value,
        "interval": interval and f"[{interval}",
        "verdict": verdict,
        "symbol": SYMBOLS[verdict],
        "style": _style(verdict),
    }


def _control(
    model: str, original: str, by_model: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Each claim about a control beside the same about its original."""
    rows = []
    for one, other in zip(by_model[original], by_model[model], strict=True):
        same = one["verdict"] == other["verdict"]
        rows.append(
            {
                "claim": one["claim"],
                "unit": _unit(one),
                "original": f"{_plain(one)} {SYMBOLS[one['verdict']]}",
                "control": f"{_plain(other)} {SYMBOLS[other['verdict']]}",
                "intervals": _meeting(one, other),
                "same": same,
                "verdict": "the same" if same else f"{one['verdict']} → {other['verdict']}",
            }
        )
    kept = sum(row["same"] for row in rows)
    apart = sum(row["intervals"] == "apart" for row in rows)
    return {
        "model": model,
        "original": original,
        "rows": rows,
        "summary": (
            f"{kept} of {len(rows)} verdicts are the same; the intervals of {apart} are apart. Both models are"
            " measured on text of the same sources, so intervals that overlap may still hide a difference, and the"
            f" control counts as no model of its own. {KEY}."
        ),
    }


def _meeting(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Whether two intervals overlap."""
    ends = [row[name] for row in (one, other) for name in ("low", "high")]
    if None in ends:
        return ""
    return "overlap" if ends[0] <= ends[3] and ends[2] <= ends[1] else "apart"


def _tally(row: dict[str, Any]) -> str:
    """3 of 4 (1 undecided)."""
    rest = [
        f"{row[name]} {verdict}"
        for name, verdict in COUNTS.items()
        if row[name] and verdict != SUPPORTED
    ]
    of = f"all {row['n_models']}" if not rest else f"{row['n_supported']} of {row['n_models']}"
    return of + f" ({', '.join(rest)})" * bool(rest)


def _plain(row: dict[str, Any]) -> str:
    """A value with its interval, without the name of its unit."""
    return estimate(row).removesuffix(" logits")


def _unit(row: dict[str, Any]) -> str:
    return " (logits)" * (row["unit"] == "logits")


def _style(verdict: str) -> str:
    return verdict.replace(" ", "-")
