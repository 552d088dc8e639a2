"""What a study found, from its table by depth: scalars and a short text. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ..formats import with_interval
from ..inert import inert_line
from ..vocabulary import LAST_BUT_ONE, QUARTERS, SECOND_HALF, SHARED_EFFECTS, TOP, bounded
from .terms import POST_NORMS, main_ablation, models_with_post_norms

# With fewer prompts than this an interval covers clearly less than it says (docs/method.md section 4).
FEW_PROMPTS = 5

# Heading and column of what the text shows; shares are of the direct effect.
SHOWN = {
    "direct effect": "direct_effect",
    "self-repair": "self_repair",
    "from heads": "from_heads",
    "from MLPs": "from_mlps",
    "from post-norms": POST_NORMS,
    "from norm": "from_norm",
    "self-repair, share": "self_repair_share",
    "from norm, share": "from_norm_share",
}
# The same of several models, a row each: of the second half, and in the last layer but one.
OF_MODELS = {
    "direct effect": "direct_effect",
    "self-repair": "self_repair",
    "restored share": "restored_share",
    "from heads, share": "from_heads_share",
    "from MLPs, share": "from_mlps_share",
    "from post-norms, share": f"{POST_NORMS}_share",
    "from norm, share": "from_norm_share",
}
LAST_NORM = "from norm, share, last layer but one"


def headline(depth: pl.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Scalars by model and group of layers, which `dvc metrics show` reads.

    Of top tokens under resample ablation, or else the first one; effects in logits, shares of the
    direct effect; values that are not finite are left out, and what post-norms make up for in models
    that have none.
    """
    top = depth.filter(selection=TOP)
    shares = (f"{name}_share" for name in SHARED_EFFECTS)
    names = ("direct_effect", *SHARED_EFFECTS, *shares, "restored_share")
    normed = models_with_post_norms(top)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in top.filter(ablation=main_ablation(top)).iter_rows(named=True):
        values = {
            name: row[name]
            for name in names
            if np.isfinite(row[name]) and (row["model"] in normed or POST_NORMS not in name)
        }
        if values:
            found.setdefault(row["model"], {})[row["depth"]] = values
    return found


def findings(
    depth: pl.DataFrame,
    errors: Mapping[str, float],
    notes: Mapping[str, Sequence[str]] | None = None,
    controls: Mapping[str, str] | None = None,
) -> str:
    """What a study found, as Markdown: top tokens by depth, then the last layers by ablation.

    errors: the largest error of each sum that is checked, by name, in logits. notes: what a reader must
    know of a model, by model. controls: of each model that is a control, the one that it is a control of.
    """
    shown = depth.with_columns(pl.col("model").map_elements(inert_line, return_dtype=pl.String))
    notes = {inert_line(model): [*map(inert_line, own)] for model, own in (notes or {}).items()}
    controls = {inert_line(a): inert_line(b) for a, b in (controls or {}).items()}
    top = shown.filter(selection=TOP)
    ablation = main_ablation(top)
    worst = ", ".join(f"{name} {value:.1e}" for name, value in errors.items())
    one = top["model"].n_unique() == 1
    return "\n".join(
        [
            f"Self-repair under {ablation} ablation on tokens of each head's top 2 %, mean over "
            "heads, in logits; shares are of the direct effect; 95 % intervals over prompts. Tokens are "
            "the different ones that were measured of any of the heads:",
            "",
            *(_of_one(top, ablation) if one else _of_several(top, ablation, controls)),
            *_caution(top),
            *_noted(notes),
            f"Largest errors of the sums, in logits: {worst}.",
            "",
        ]
    )


def _of_one(top: pl.DataFrame, ablation: str) -> list[str]:
    """By quarter of the layers, and by ablation."""
    quarters = top.filter(pl.col("depth").is_in(QUARTERS), ablation=ablation)
    return [
        *_lines(quarters, "depth", "layers"),
        "",
        "The same for the last quarter of the layers under each ablation:",
        "",
        *_lines(top.filter(depth=QUARTERS[-1]), "ablation", "ablation"),
        "",
    ]


def _of_several(top: pl.DataFrame, ablation: str, controls: Mapping[str, str]) -> list[str]:
    """A row per model in each of three tables: main quantities, by quarter of the layers, by ablation."""
    names = {
        model: f"{model} (control of {controls[model]})" if model in controls else model
        for model in top["model"].unique(maintain_order=True)
    }
    main, last = top.filter(ablation=ablation), top.filter(depth=QUARTERS[-1])
    quarters = [name for name in QUARTERS if name in set(main["depth"])]
    ablations = last["ablation"].unique(maintain_order=True).to_list()
    return [
        f"The {SECOND_HALF} of the layers (restored: of the effect that was removed):",
        "",
        *_main_quantities(main, names),
        "",
        "Self-repair by depth, as a share of the direct effect:",
        "",
        *_crossed(main, names, "depth", quarters),
        "",
        "The same for the last quarter of the layers under each ablation:",
        "",
        *_crossed(last, names, "ablation", ablations),
        "",
    ]


def _main_quantities(main: pl.DataFrame, names: Mapping[str, str]) -> list[str]:
    """The table of OF_MODELS; names: of each model as it is shown."""
    normed = models_with_post_norms(main)
    shown = {k: v for k, v in OF_MODELS.items() if normed or not v.startswith(POST_NORMS)}
    rows = []
    for model, name in names.items():
        row, last = (_only(main, model=model, depth=g) for g in (SECOND_HALF, LAST_BUT_ONE))
        cells = [
            _cell(row, column) if model in normed or not column.startswith(POST_NORMS) else ""
            for column in shown.values()
        ]
        rows.append([name, *_counts(row), *cells, _cell(last, "from_norm_share")])
    return _markdown(["model", "tokens", "prompts", *shown, LAST_NORM], rows)


def _crossed(
    table: pl.DataFrame, names: Mapping[str, str], key: str, values: Sequence[str]
) -> list[str]:
    """Self-repair as a share, a row per model and a column per value of the column `key`."""
    rows = [
        [
            name,
            *(
                _cell(_only(table, model=model, **{key: value}), "self_repair_share")
                for value in values
            ),
        ]
        for model, name in names.items()
    ]
    return _markdown(["model", *values], rows)


def _only(table: pl.DataFrame, **keys: str) -> dict[str, Any] | None:
    rows = table.filter(**keys).to_dicts()
    return rows[0] if rows else None


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    first, *rest = (f"| {' | '.join(each)} |" for each in (head, *rows))
    return [first, "|" + "---|" * len(head), *rest]


def _counts(row: Mapping[str, Any] | None) -> list[str]:
    return [
        "" if row is None or row[n] is None else f"{row[n]:,}" for n in ("n_tokens", "n_prompts")
    ]


def _caution(table: pl.DataFrame) -> list[str]:
    if (table["n_prompts"] >= FEW_PROMPTS).all():
        return []
    return [f"Intervals that rest on fewer than {FEW_PROMPTS} prompts are too narrow.", ""]


def _noted(notes: Mapping[str, Sequence[str]]) -> list[str]:
    lines = [f"- {model}: {note}" for model, about in notes.items() for note in about]
    return ["Notes:", "", *lines, ""] if lines else []


def _lines(table: pl.DataFrame, key: str, heading: str) -> list[str]:
    """A Markdown table with a row per model and value of the column `key`.

    What post-norms make up for has a column if a model has any; it is empty for models without.
    """
    normed = models_with_post_norms(table)
    shown = {word: name for word, name in SHOWN.items() if normed or name != POST_NORMS}
    head = ["model", heading, "tokens", "prompts", *shown]
    rows = []
    for row in table.iter_rows(named=True):
        has_all = row["model"] in normed
        cells = [
            _cell(row, name) if has_all or name != POST_NORMS else "" for name in shown.values()
        ]
        rows.append([row["model"], row[key], *_counts(row), *cells])
    return _markdown(head, rows)


def _cell(row: Mapping[str, Any] | None, name: str) -> str:
    """A number with its interval; a table's heading says that the rest is in logits."""
    if row is None:
        return ""
    if row["n_tokens"] is None:  # not every head was ablated
        return "not measured"
    value, low, high = (row[column] for column in bounded(name))
    return with_interval(value, low, high, unit="share" if name.endswith("_share") else "")
