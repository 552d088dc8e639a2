"""The tokenizer of a model, without loading the model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .errors import InputError

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from transformers import AutoTokenizer


def load_tokenizer(name: str, *, revision: str | None = None) -> Any:
    """The tokenizer of a hub name or local directory; InputError if there is none."""
    looks_local = name.startswith((".", "/", "~")) or Path(name).exists()
    if looks_local and not Path(name, "config.json").is_file():
        raise InputError(f"model {name}: no such Hugging Face directory (it has no config.json)")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        # Without its files, a class that the model's config names comes up empty instead of failing.
        if len(tokenizer) <= len(tokenizer.all_special_tokens):
            raise ValueError("it has no tokenizer files")
        return tokenizer
    except Exception as error:
        remedy = (
            "save one beside the weights" if looks_local else "check the name and the connection"
        )
        raise InputError(
            f"model {name}: no tokenizer found ({first_line(error)}); {remedy}"
        ) from error


def first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
