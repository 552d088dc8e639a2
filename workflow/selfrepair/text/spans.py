"""Where each token of a prompt stands in its text, so that text can be shown token by token without the tokenizer.

Characters, not the tokenizer's own strings: a character that takes several byte-level tokens is the span of
each of them, and never comes out as half of one.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from ..errors import InputError


def token_spans(prompts: pl.DataFrame, documents: pl.DataFrame, tokenizer: Any) -> pl.DataFrame:
    """The span of each token.

    Args:
        prompts, documents: tables of `windows.cut_prompts` and `documents.sample_documents`.
        tokenizer: that of the prompts' model, which says where in a text its tokens stand.
    Returns:
        One row per prompt: prompt; skips, lengths: per token the characters between the end of the token before
        (or `character_start` of the prompt) and its start, and the characters that it spans. A skip is negative
        where two tokens share a character. A beginning-of-sequence token has 0 and 0.
    Raises:
        InputError: a document is missing, or the tokenizer cuts it otherwise than the prompts were.
    """
    texts = dict(documents.select("sha256", "text").iter_rows())
    found = {}
    for (sha256,), rows in prompts.group_by("document_sha256", maintain_order=True):
        if sha256 not in texts:
            raise InputError(f"prompts: document {sha256} is not in the documents; cut them again")
        encoded = tokenizer(
            texts[sha256], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        for row in rows.iter_rows(named=True):
            found[row["prompt"]] = _spans_of(row, encoded)
    numbers = pl.List(pl.Int32)
    return pl.DataFrame(
        [(prompt, *found[prompt]) for prompt in prompts["prompt"]],
        schema={"prompt": pl.Int32(), "skips": numbers, "lengths": numbers},
        orient="row",
    )


def _spans_of(row: dict[str, Any], encoded: Any) -> tuple[list[int], list[int]]:
    """Skips and lengths of the tokens of one prompt (raises as `token_spans`)."""
    first = int(row["bos_token"] is not None)
    tokens, offset = row["tokens"][first:], row["token_offset"]
    stop = offset + len(tokens)
    if encoded["input_ids"][offset:stop] != tokens:
        raise InputError(
            f"prompt {row['prompt']}: the tokenizer cuts its text otherwise than when the prompts were cut;"
            " delete prompts.parquet and run again"
        )
    spans = encoded["offset_mapping"][offset:stop]
    ends = [row["character_start"], *(end for _, end in spans)]
    skips = [start - before for (start, _), before in zip(spans, ends[:-1], strict=True)]
    return [0] * first + skips, [0] * first + [end - start for start, end in spans]
