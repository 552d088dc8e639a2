"""The text of a first study: what kind of source it is, and how many prompts it holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..text.cleaning import clean, is_damaged
from ..text.sources import read_source
from ..text.vetting import vet_text

# Without a text: the default study's, taken by name from materials.yaml.
SHARED = {"news": 3, "proceedings": 1, "encyclopedia": 2, "code": 1, "documentation": 1}
# Tokens of a prompt, the longest that the text allows; shorter prompts say little about a model.
_LENGTHS = (128, 64, 32)
# The fewest prompts that an interval over prompts may be of.
FEWEST = 32

Source = dict[str, str]


def source_of(text: str, *, column: str = "text") -> Source:
    """What a study's config says of a text that a command line names: a file, or a data set.

    Raises:
        InputError: there is no such file, or one of another kind.
    """
    path = Path(text).expanduser()
    licence = {"licence": "not stated"}
    key = {} if column == "text" else {"column": column}
    if path.is_file() or path.suffix in (".txt", ".jsonl"):
        if not path.is_file():
            raise InputError(f"text: there is no file {path}")
        if path.suffix not in (".txt", ".jsonl"):
            raise InputError(
                f"text: {path} is neither .txt nor .jsonl; rename it, or save it as one of them"
            )
        return {"kind": "file", "path": str(path.absolute()), **key, **licence}
    if path.exists():
        return {"kind": "dataset", "dataset": str(path.absolute()), **key, **licence}
    if text.startswith((".", "/", "~")):
        raise InputError(f"text: there is no file or directory {path}")
    return {"kind": "dataset", "dataset": text, **key, **licence}


def prompts_in(
    source: Source, tokenizer: Any, *, wanted: int, most: int, longest: int, bos: bool
) -> tuple[int, int]:
    """Tokens of a prompt, and how many such prompts a file holds (most is enough).

    The longest prompts of which there are as many as wanted; else the longest of which there are enough
    for a study.

    Args:
        longest: tokens of a prompt that the model takes; bos: whether one of them is a BOS.
    Raises:
        InputError: it cannot be read, or holds too little text.
    """
    lengths = [length for length in _LENGTHS if length <= longest] or [longest]
    vet_text("mine", source)
    counts: list[int] = []
    for tokens in _token_counts(source, tokenizer):
        counts.append(tokens)
        if _windows(counts, lengths[0] - bos) >= most:
            break
    found = {length: min(most, _windows(counts, length - bos)) for length in lengths}
    for least in (wanted, FEWEST):
        for length in lengths:
            if found[length] >= least:
                return length, found[length]
    raise InputError(
        f"text: {source['path']} holds {max(found.values())} prompts of {lengths[-1]} tokens, a study "
        f"needs at least {FEWEST}; give more text, some {FEWEST * lengths[0] * 4 // 1000:,} kB or more"
    )


def _token_counts(source: Source, tokenizer: Any) -> Iterator[int]:
    """Tokens of each document of a file, as a study would take it."""
    whole = {"column": "text"} | source
    for _, raw in read_source("mine", whole, wheels={}, cache=Path()):
        text = clean(source["kind"], raw)
        if not is_damaged(text):
            yield len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _windows(counts: list[int], length: int) -> int:
    return sum(count // length for count in counts)
