"""The tokens of the page: each head on those of its tokens that were measured, and the text around them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from ..files.arrays import read_arrays
from ..files.storage import read_json
from ..vocabulary import SAMPLED

_KEYS = ("layer", "head", "prompt", "position")
_EFFECTS = ("direct_effect", "delta_logit", "self_repair")
_SCHEMA = {
    "ablation": pl.String,
    **dict.fromkeys(_KEYS, pl.Int32),
    **dict.fromkeys(("top", "random"), pl.Boolean),
    **dict.fromkeys(_EFFECTS, pl.Float64),
}


def measured_tokens(sweeps: Mapping[str, Path], chosen: pl.DataFrame) -> pl.DataFrame:
    """A row for each ablation, head and measured token.

    Args:
        sweeps: the index of each sweep by its ablation, shards unpacked. One over all tokens keeps sums and no
            tokens, and gives no rows.
        chosen: `tokens.parquet`: more top tokens of chosen heads, resample ablated.
    Returns:
        ablation, layer, head, prompt, position; top, random: whether the sweep drew it from the head's top
        tokens, from all tokens, both may be true; direct_effect, delta_logit, self_repair in logits. Sorted by
        all but the last.
    Raises:
        InputError: a shard is missing, damaged, or not the one that was gathered.
    """
    tables = [pl.DataFrame(schema=_SCHEMA)]
    tables += [table for ablation, index in sweeps.items() for table in _drawn(index, ablation)]
    more = chosen.select(
        pl.lit("resample").alias("ablation"),
        *(pl.col(name).cast(pl.Int32) for name in _KEYS),
        pl.lit(True).alias("top"),
        pl.lit(False).alias("random"),
        *(pl.col(name).cast(pl.Float64) for name in _EFFECTS),
    )
    swept = pl.concat(tables)
    more = more.join(swept.filter("top"), on=["ablation", *_KEYS], how="anti")
    return pl.concat([swept, more]).sort("ablation", *_KEYS)


def _drawn(index: Path, ablation: str) -> Iterable[pl.DataFrame]:
    """The instances of each shard of a sweep of drawn tokens."""
    if read_json(index).get("tokens") != SAMPLED:
        return
    for arrays in read_arrays(index, [name for name in _SCHEMA if name != "ablation"]):
        named = pl.DataFrame(arrays).with_columns(ablation=pl.lit(ablation)).select(list(_SCHEMA))
        yield named.cast(_SCHEMA)  # type: ignore[arg-type]


def prompt_texts(
    prompts: pl.DataFrame, spans: pl.DataFrame, documents: pl.DataFrame, wanted: Iterable[int]
) -> dict[str, Any]:
    """The text of the prompts wanted, and where their tokens stand in it: columns, a place per prompt.

    prompts, spans, documents: `prompts.parquet`, `token_spans.parquet` and `documents.parquet`.
    """
    chosen = prompts.filter(pl.col("prompt").is_in(sorted(set(wanted)))).sort("prompt")
    joined = chosen.join(spans, on="prompt").join(
        documents.select(pl.col("sha256").alias("document_sha256"), "text").unique(
            "document_sha256"
        ),
        on="document_sha256",
        maintain_order="left",
    )
    start, end = pl.col("character_start"), pl.col("character_end")
    return joined.select(
        "prompt",
        "source",
        "document",
        "licence",
        pl.col("text").str.slice(start, end - start),
        "skips",
        "lengths",
    ).to_dict(as_series=False)
