"""What a study found, from its table by depth: scalars and a short text. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ..ablations import RESAMPLE
from ..formats import with_interval
from ..vocabulary import QUARTERS, SHARED_EFFECTS, TOP, bounded
from .terms import POST_NORMS, models_with_post_norms

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
    for row in top.filter(ablation=_main_ablation(top)).iter_rows(named=True):
        values = {
            name: row[name]
            for name in names
            if np.isfinite(row[name]) and (row["model"] in normed or POST_NORMS not in name)
        }
        found.setdefault(row["model"], {})[row["depth"]] = values
    return found


def findings(
    depth: pl.DataFrame,
    errors: Mapping[str, float],
    notes: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """What a study found, as Markdown: top tokens by depth, then the last layers by ablation.

    errors: the largest error of each sum that is checked, by name, in logits. notes: what a reader must
    know of a model, by model.
    """
    top = depth.filter(selection=TOP)
    ablation = _main_ablation(top)
    worst = ", ".join(f"{name} {value:.1e}" for name, value in errors.items())
    return "\n".join(
        [
            f"Self-repair under {ablation} ablation on tokens of each head's top 2 %, mean over "
            "heads, in logits; shares are of the direct effect; 95 % intervals over prompts. Tokens are "
            "the different ones that were measured of any of the heads:",
            "",
            *_lines(
                top.filter(pl.col("depth").is_in(QUARTERS), ablation=ablation), "depth", "layers"
            ),
            "",
            "The same for the last quarter of the layers under each ablation:",
            "",
            *_lines(top.filter(depth=QUARTERS[-1]), "ablation", "ablation"),
            "",
            *_caution(top),
            *_noted(notes or {}),
            f"Largest errors of the sums, in logits: {worst}.",
            "",
        ]
    )


def _main_ablation(depth: pl.DataFrame) -> str:
    """The paper's ablation if it was swept, else the first one that was."""
    swept = depth["ablation"]
    return RESAMPLE.name if RESAMPLE.name in swept else str(swept[0])


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
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in table.iter_rows(named=True):
        has_all = row["model"] in normed
        cells = [
            _cell(row, name) if has_all or name != POST_NORMS else "" for name in shown.values()
        ]
        counts = f"{row['n_tokens']:,} | {row['n_prompts']:,}"
        lines.append(f"| {row['model']} | {row[key]} | {counts} | {' | '.join(cells)} |")
    return lines


def _cell(row: Mapping[str, Any], name: str) -> str:
    """A number with its interval; a table's heading says that the rest is in logits."""
    value, low, high = (row[column] for column in bounded(name))
    return with_interval(value, low, high, unit="share" if name.endswith("_share") else "")
