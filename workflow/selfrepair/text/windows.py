"""Cutting documents into the prompts of a model: windows of tokens, each of one document, not padded.

Prompt i is the same whatever the number of prompts. While there are documents that have given no
prompt, each gives one; then each that is long enough gives a second, and so on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
import torch

from ..errors import InputError
from .mixture import deal_sources, generator_of
from .partners import sample_derangement


def cut_prompts(
    documents: pl.DataFrame,
    tokenizer: Any,
    sources: Mapping[str, Mapping[str, Any]],
    *,
    prompts: int,
    tokens_per_prompt: int,
    seed: int,
    bos_token: int | None = None,
) -> pl.DataFrame:
    """Token windows of one document each, and each prompt's resample partner (`donor`).

    Args:
        bos_token: a beginning-of-sequence token to put first in each window, which is then one token
            of text shorter; None: windows hold tokens of the text alone.
    Returns:
        One row per prompt: prompt, source, document, licence, document_sha256, token_offset,
        character_start, character_end, sha256 (of that text), tokens (list, bos_token first),
        bos_token, donor (a prompt).
    Raises:
        InputError: the documents of a source do not hold the prompts asked of it.
    """
    names = list(sources)
    dealt = deal_sources(sources, prompts)
    first = [] if bos_token is None else [bos_token]
    length = tokens_per_prompt - len(first)
    windows = {
        names[index]: _windows(documents.filter(source=names[index]), tokenizer, length, seed)
        for index in sorted(set(dealt))
    }
    rows = []
    for prompt, index in enumerate(dealt):
        window = next(windows[names[index]], None)
        if window is None:
            raise _too_few(documents, names[index], dealt.count(index), dealt[:prompt].count(index))
        rows.append({"prompt": prompt, **window, "tokens": first + window["tokens"]})
    donors = sample_derangement(prompts, torch.Generator().manual_seed(seed))
    table = pl.DataFrame(rows, schema_overrides={"tokens": pl.List(pl.Int32)})
    return table.with_columns(
        bos_token=pl.lit(bos_token, dtype=pl.Int32),
        donor=pl.Series(donors.tolist(), dtype=pl.Int32),
    )


def _windows(
    documents: pl.DataFrame, tokenizer: Any, length: int, seed: int
) -> Iterator[dict[str, Any]]:
    """One window of each document in turn, then a second of each that has one, and so on.

    Documents are tokenised one after another, as their first windows are asked for.
    """
    cut: list[tuple[dict[str, Any], Any, np.ndarray]] = []
    for row in documents.iter_rows(named=True):
        encoded = tokenizer(
            row["text"], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        windows = len(encoded["input_ids"]) // length
        order = generator_of(seed, row["sha256"]).permutation(windows)
        cut.append((row, encoded, order))
        if len(order):
            yield _window(row, encoded, int(order[0]) * length, length)
    for turn in range(1, max((len(order) for _, _, order in cut), default=0)):
        for row, encoded, order in cut:
            if len(order) > turn:
                yield _window(row, encoded, int(order[turn]) * length, length)


def _window(row: dict[str, Any], encoded: Any, offset: int, length: int) -> dict[str, Any]:
    """The window of `length` tokens from token `offset` on, and where its text stands."""
    spans = encoded["offset_mapping"][offset : offset + length]
    start, end = spans[0][0], spans[-1][1]
    return {
        "source": row["source"],
        "document": row["document"],
        "licence": row["licence"],
        "document_sha256": row["sha256"],
        "token_offset": offset,
        "character_start": start,
        "character_end": end,
        "sha256": hashlib.sha256(row["text"][start:end].encode()).hexdigest(),
        "tokens": encoded["input_ids"][offset : offset + length],
    }


def _too_few(documents: pl.DataFrame, name: str, asked: int, found: int) -> InputError:
    held = documents.filter(source=name).height
    return InputError(
        f"text.prompts: source {name} is asked for {asked} prompts, but its {held} documents hold "
        f"{found}; lower text.prompts, its weight, or text.tokens_per_prompt"
    )
