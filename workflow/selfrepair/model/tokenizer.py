"""The tokenizer of a model, without loading the model."""

from __future__ import annotations

import os
from typing import Any

from ..errors import InputError, first_line
from ..files.hub import is_local, locate_model

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from transformers import AutoTokenizer

# What stands between documents in the training text of GPT-2, Pythia, Qwen and others.
END_OF_TEXT = "<|endoftext|>"


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


def bos_token_of(tokenizer: Any, bos: str) -> int | None:
    """The token that is put in front of every window, None for none (docs/method.md section 1).

    bos: "auto", what the tokenizer itself puts in front of a text; "always", its beginning-of-sequence
    token, or its end-of-text token where it has none; "never", none.
    Raises:
        InputError: always, and it has neither token; auto, and it puts several in front.
    """
    if bos == "never":
        return None
    if bos == "auto":
        return _own_first_token(tokenizer)
    if tokenizer.bos_token_id is not None:
        return int(tokenizer.bos_token_id)
    # A chat model's own end token ends a turn, not a text.
    found = tokenizer.get_added_vocab().get(END_OF_TEXT, tokenizer.eos_token_id)
    if found is None:
        raise InputError(
            "text.bos: always, but this model's tokenizer has neither a beginning-of-sequence nor an "
            "end-of-text token; say auto or never"
        )
    return int(found)


def _own_first_token(tokenizer: Any) -> int | None:
    """What the tokenizer puts in front of a text when it adds special tokens."""
    own = tokenizer("x")["input_ids"]
    text = tokenizer("x", add_special_tokens=False)["input_ids"]
    starts = range(len(own) - len(text) + 1)
    added: list[int] = next((own[:at] for at in starts if own[at : at + len(text)] == text), [])
    if len(added) > 1:
        tokens = " ".join(tokenizer.convert_ids_to_tokens(added))
        raise InputError(
            f"text.bos: auto, but this model's tokenizer puts {len(added)} tokens in front of a text "
            f"({tokens}); say always or never"
        )
    return int(added[0]) if added else None
