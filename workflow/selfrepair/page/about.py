"""What a study ran: of each model and of its text, read from the sidecars and the documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

# Of what wrote and read the measurements, in this order.
_VERSIONS = ("selfrepair", "torch", "transformers", "transformer-lens", "snakemake", "python")


def about_model(heads: Mapping[str, Any], clean: Mapping[str, Any]) -> list[list[Any]]:
    """Facts of one model, (what, value) in the order in which a reader asks for them.

    heads, clean: the sidecars `heads.json` and `clean.json`.
    """
    first, after = clean["prompts"]
    swept = {name: sweep["prompts"] for name, sweep in heads["sweeps"].items()}
    weights = clean.get("weights") or {}
    facts = [
        ("weights file", weights.get("file")),
        ("commit of the model", clean.get("model_commit")),
        ("architecture", clean.get("architecture")),
        ("number format", clean["dtype"] + " with TF32" * bool(clean.get("tf32"))),
        ("prompts ranked", f"{after - first:,} of {clean['tokens_per_prompt']} tokens"),
        ("prompts ablated", ", ".join(f"{name} {count:,}" for name, count in swept.items())),
        ("beginning-of-sequence token", clean.get("bos_token")),
        ("mean surprisal (nats)", f"{clean['mean_surprisal_nats']:.2f}"),
        ("seed", clean["seed"]),
        ("device of the clean pass", clean.get("device")),
        ("versions", _named(clean["versions"])),
        ("commit of the measurement", clean.get("commit")),
        ("largest errors (logits)", _errors(heads)),
        ("SHA-256 of heads.parquet", heads["sha256"]),
    ]
    return [[what, str(value)] for what, value in facts if value is not None]


def about_text(documents: pl.DataFrame) -> list[dict[str, Any]]:
    """Each source of text with its licence and the number of its sampled documents."""
    of = documents.group_by("source", "licence", maintain_order=True)
    return of.agg(pl.len().alias("documents")).to_dicts()


def notes_of(
    heads: Mapping[str, Any], clean: Mapping[str, Any], weights: str | None
) -> Sequence[str]:
    """What a reader must know of a model to read its numbers, once each."""
    stated = [f"Weights: {weights}."] if weights else []
    return list(dict.fromkeys([*stated, *heads["notes"], *clean["notes"], *clean["warnings"]]))


def _named(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {versions[name]}" for name in _VERSIONS if name in versions)


def _errors(record: Mapping[str, Any]) -> str:
    ends = "_error"
    found = {name: value for name, value in record.items() if name.endswith(ends)}
    return ", ".join(f"{name.removesuffix(ends)} {value:.1e}" for name, value in found.items())
