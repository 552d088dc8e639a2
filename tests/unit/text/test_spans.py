"""Spans: the text of each token, BOS without any, shared characters, and a tokenizer that is another one."""

from pathlib import Path

import polars as pl
import pytest

from invented_text import source, write_documents
from selfrepair.errors import InputError
from selfrepair.text.documents import sample_documents
from selfrepair.text.spans import token_spans
from selfrepair.text.windows import cut_prompts
from tiny_models import tiny_tokenizer


@pytest.fixture
def documents(tmp_path):
    sources = {"mine": source(write_documents(tmp_path / "documents.txt"))}
    settings = {"prompts": 6, "tokens_per_prompt": 8, "seed": 3}
    return sample_documents(sources, **settings, wheels={}, cache=Path())


def cut(documents, tokenizer=None, bos_token=None):
    settings = {"prompts": 6, "tokens_per_prompt": 8, "seed": 3, "bos_token": bos_token}
    sources = {"mine": {"weight": 1}}
    return cut_prompts(documents, tokenizer or tiny_tokenizer(), sources, **settings)


def pieces(prompt, span, texts):
    """The text of each token, as a reader of the table cuts it."""
    at, found = prompt["character_start"], []
    for skip, length in zip(span["skips"], span["lengths"], strict=True):
        at += skip
        found.append(texts[prompt["document_sha256"]][at : at + length])
        at += length
    return found


@pytest.mark.parametrize("bos_token", [None, 2])
def test_each_token_has_its_text(documents, bos_token):
    prompts = cut(documents, bos_token=bos_token)
    spans = token_spans(prompts, documents, tiny_tokenizer())
    texts = dict(documents.select("sha256", "text").iter_rows())
    assert spans["prompt"].to_list() == prompts["prompt"].to_list()
    for prompt, span in zip(prompts.to_dicts(), spans.to_dicts(), strict=True):
        words = [f"w{token}" for token in prompt["tokens"]]
        if bos_token is not None:
            words[0] = ""
        assert pieces(prompt, span, texts) == words


class Bytes:
    """A tokenizer of bytes: all of a character's bytes stand where it stands."""

    def __call__(self, text, **_):
        spans = [(at, at + 1) for at, c in enumerate(text) for _ in c.encode()]
        return {"input_ids": list(text.encode()), "offset_mapping": spans}


def test_tokens_of_one_character_share_it(documents):
    odd = documents.with_columns(text=pl.lit("aé😀b" * 10))
    prompts = cut(odd, Bytes())
    spans = token_spans(prompts, odd, Bytes())
    texts = dict(odd.select("sha256", "text").iter_rows())
    of_bytes = [c for c in "aé😀b" for _ in c.encode()]
    for prompt, span in zip(prompts.to_dicts(), spans.to_dicts(), strict=True):
        offset = prompt["token_offset"] % 8
        assert pieces(prompt, span, texts) == (of_bytes * 2)[offset : offset + 8]
        assert -1 in span["skips"]


def test_a_tokenizer_that_cuts_otherwise_is_refused(documents):
    prompts = cut(documents)
    with pytest.raises(InputError, match="prompt 0: the tokenizer cuts its text otherwise"):
        token_spans(prompts, documents, Bytes())
    with pytest.raises(InputError, match="is not in the documents"):
        token_spans(prompts, documents.clear(), tiny_tokenizer())
