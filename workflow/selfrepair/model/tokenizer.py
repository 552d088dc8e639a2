"""The tokenizer of a model, without loading the model."""

from __future__ import annotations

import os
from typing import Any

from ..errors import InputError, first_line
from ..files.hub import is_local, locate_model

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from transformers import AutoTokenizer


def load_tokenizer(name: str, *, revision: str | None = None) -> Any:
    """The tokenizer of a hub name or local directory; InputError if there is none (or no model)."""
    folder, _ = locate_model(name, revision=revision, weights=False)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        # Without its files, a class that the model's config names comes up empty instead of failing.
        if len(tokenizer) <= len(tokenizer.all_special_tokens):
            raise ValueError("it has no tokenizer files")
        return tokenizer
    except Exception as error:
        remedy = "save one beside the weights" if is_local(name) else "name a model that has one"
        raise InputError(
            f"model {name}: no tokenizer found ({first_line(error)}); {remedy}"
        ) from error
