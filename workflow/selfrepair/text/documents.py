"""Sampling documents: in an order that the seed fixes, cleaned, only as many as prompts need."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from ..errors import InputError
from ..files.wheels import Wheel
from .cleaning import clean, is_damaged
from .mixture import deal_sources, generator_of
from .sources import Source, read_source

# More characters than a token stands for, on average over a document, in any tokenizer. A document of
# this many per token of a prompt certainly gives one prompt. It decides how many documents are kept for
# the tokenizer, never which.
_CHARACTERS_PER_TOKEN = 8

_COLUMNS = ("source", "document", "licence", "sha256", "text")


def sample_documents(
    sources: Mapping[str, Source],
    *,
    prompts: int,
    tokens_per_prompt: int,
    seed: int,
    wheels: Mapping[str, Wheel],
    cache: Path,
) -> pl.DataFrame:
    """The documents that prompts are cut from, in their sampled order.

    Returns:
        One row per document: source, document, licence, sha256 (of the cleaned text), text.
    Raises:
        InputError: a source that cannot be read, or without any document long enough.
    """
    wanted = np.bincount(deal_sources(sources, prompts), minlength=len(sources))
    tables = [
        _sample_source(
            name,
            source,
            prompts=int(count),
            tokens_per_prompt=tokens_per_prompt,
            seed=seed,
            wheels=wheels,
            cache=cache,
        )
        for (name, source), count in zip(sources.items(), wanted, strict=True)
        if count
    ]
    return pl.concat(tables)


def _sample_source(
    name: str,
    source: Source,
    *,
    prompts: int,
    tokens_per_prompt: int,
    seed: int,
    wheels: Mapping[str, Wheel],
    cache: Path,
) -> pl.DataFrame:
    """Documents of one source until `prompts` of them certainly give a prompt, or all there are."""
    documents = list(read_source(name, source, wheels=wheels, cache=cache))
    rows, certain = [], 0
    for index in generator_of(seed, name).permutation(len(documents)):
        document, raw = documents[index]
        text = clean(source["kind"], raw)
        # Fewer characters than tokens asked for: it cannot give a prompt, but for rare characters.
        if len(text) >= tokens_per_prompt and not is_damaged(text):
            sha256 = hashlib.sha256(text.encode()).hexdigest()
            rows.append((name, document, source["licence"], sha256, text))
            certain += len(text) >= tokens_per_prompt * _CHARACTERS_PER_TOKEN
        if certain == prompts:
            break
    if not rows:
        raise InputError(
            f"text.sources.{name}: none of its {len(documents)} documents has {tokens_per_prompt} "
            "tokens; lower text.tokens_per_prompt or take another source"
        )
    return pl.DataFrame(rows, schema=_COLUMNS, orient="row")
