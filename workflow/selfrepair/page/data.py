"""All that the page shows, as one JSON value: what was run, claims, and each model's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from ..vocabulary import EFFECTS, SHARED_EFFECTS, bounded
from .about import about_model, about_text, notes_of
from .columns import Columns, columns
from .tokens import measured_tokens, prompt_texts

# Columns of heads.parquet that can be chosen for the map, each with its interval.
QUANTITIES = (
    *EFFECTS,
    "restored_share",
    *(f"{name}_share" for name in SHARED_EFFECTS),
    "over_corrected_share",
    "self_repair_sd",
    "self_repair_noise",
)
# Of single tokens and of entries of the map, in logits: the third place is below what is sure of them.
_PLACES = 3


@dataclass(frozen=True)
class ModelResults:
    """What the page reads of one model. key: its name in the config; weights: what is to be known of them.

    tables: `heads`, `prompts`, `token_spans`, `tokens`, `scale_ratios`, `top_neurons`, `neuron_counts` and
    `repair_map` by name; any but the first three may be missing or have no rows. sweeps: the index of each sweep
    by its ablation. heads_record, clean_record: the sidecars heads.json and clean.json.
    """

    key: str
    tables: Mapping[str, pl.DataFrame]
    heads_record: Mapping[str, Any]
    clean_record: Mapping[str, Any]
    sweeps: Mapping[str, Path] = field(default_factory=dict)
    weights: str | None = None
    control_of: str | None = None


def page_data(
    study: str,
    models: Sequence[ModelResults],
    *,
    claims: pl.DataFrame,
    over_models: pl.DataFrame,
    documents: pl.DataFrame,
    figures: Mapping[str, Mapping[str, str]],
    formats: Sequence[str],
) -> dict[str, Any]:
    """The page's data.

    figures: the path of each figure without its ending, seen from the page, by the model's key and the figure's
    key; formats: the endings that it has.

    Raises:
        InputError: a shard of a sweep is missing or damaged.
    """
    return {
        "study": study,
        "text": about_text(documents),
        "claims": columns(claims),
        "over_models": columns(over_models),
        "figures": figures,
        "formats": list(formats),
        "models": [_model(model, documents) for model in models],
    }


def _model(model: ModelResults, documents: pl.DataFrame) -> dict[str, Any]:
    tables = model.tables
    heads = tables["heads"]
    tokens = measured_tokens(model.sweeps, _rows(tables, "tokens", _TOKENS))
    prompts = prompt_texts(
        tables["prompts"], tables["token_spans"], documents, tokens["prompt"].unique()
    )
    return {
        "key": model.key,
        "title": heads["model"][0],
        "control_of": model.control_of,
        "notes": notes_of(model.heads_record, model.clean_record, model.weights),
        "about": about_model(model.heads_record, model.clean_record),
        "layers": heads["layer"].max() + 1,  # type: ignore[operator]
        "heads_per_layer": heads["head"].max() + 1,  # type: ignore[operator]
        "heads": _heads(heads),
        "tokens": columns(tokens, places=_PLACES),
        "prompts": prompts,
        "scale_ratios": columns(_rows(tables, "scale_ratios", _RATIOS)),
        "neuron_counts": columns(_rows(tables, "neuron_counts", _COUNTS)),
        "top_neurons": columns(_rows(tables, "top_neurons", _NEURONS), places=_PLACES),
        "repair_map": columns(_known(_rows(tables, "repair_map", _MAP)), places=_PLACES),
    }


_OF_HEAD = ("layer", "head")
_TOKENS = (
    *(*_OF_HEAD, "prompt", "position"),
    *("direct_effect", "delta_logit", "self_repair"),
)
_RATIOS = ("ablation", *_OF_HEAD, "prompt", "position", "ratio", "direct_effect")
_COUNTS = (*_OF_HEAD, "mlp_layer", "neuron", "instances", "prompts", "n_tokens")
_NEURONS = (
    *(*_OF_HEAD, "mlp_layer", "prompt", "position", "neuron"),
    *("direct_effect", "ablated_direct_effect", "region"),
)
_MAP = (
    *("ablation", *_OF_HEAD, "kind", "component_layer", "component_head", "n_components"),
    *("mean", "low", "high"),
)


def _rows(tables: Mapping[str, pl.DataFrame], name: str, wanted: Sequence[str]) -> pl.DataFrame:
    """Columns of a table; no rows where the study has no such table."""
    if name not in tables or not tables[name].height:
        return pl.DataFrame(schema=dict.fromkeys(wanted, pl.Float64))
    return tables[name].select(wanted)


def _known(repair_map: pl.DataFrame) -> pl.DataFrame:
    """Without the rows of heads that have no tokens, or that no sweep has ablated."""
    return repair_map.filter(pl.col("mean").is_finite())


def _heads(heads: pl.DataFrame) -> Columns:
    """Counts and quantities of each head; a term that is exactly 0 in the whole model is left out."""
    there = [name for name in QUANTITIES if name in heads.columns]
    shown = [name for name in there if not _is_absent(heads, name)]
    names = [column for name in shown for column in bounded(name)]
    keys = ("ablation", "selection", *_OF_HEAD, "n_tokens", "n_prompts")
    kept = heads.sort("ablation", "selection", *_OF_HEAD).select(*keys, *names)
    return columns(kept)


def _is_absent(heads: pl.DataFrame, name: str) -> bool:
    """Whether this is the part of post-norms that the model does not have."""
    return "post_norms" in name and bool((heads[name] == 0).all())
