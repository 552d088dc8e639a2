"""Prompts of the narrow task: names are single tokens, one length, both orders, partners without an answer."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from selfrepair.errors import InputError
from selfrepair.text import ioi
from selfrepair.text.ioi import (
    ABBA,
    BABA,
    FEWEST_NAMES,
    NAMES,
    OBJECTS,
    PLACES,
    SCHEMA,
    TEMPLATES,
    ioi_prompts,
    no_ioi_prompts,
    single_token_names,
)
from tiny_models import naming_tokenizer, tiny_tokenizer

PROMPTS = 40


def tokenizer_of(words: list[str]) -> PreTrainedTokenizerFast:
    """Words with the space before them are tokens; of others, so is each letter (as of byte-level ones)."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = ["<unk>", *letters, *("▁" + each for each in ["", *letters, *words])]
    known = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.Unigram([(p, -1.0) for p in known], unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


SUBWORDS = tokenizer_of([*NAMES, "and", "the", "to"])


@pytest.fixture(scope="module", params=["words", "subwords"])
def tokenizer(request):
    return naming_tokenizer() if request.param == "words" else SUBWORDS


@pytest.fixture(scope="module", params=[None, 1])
def table(request, tokenizer):
    return ioi_prompts(tokenizer, prompts=PROMPTS, seed=0, bos_token=request.param)


def test_prompts_are_their_text_and_end_with_the_answer(table, tokenizer):
    names = single_token_names(tokenizer)
    for row in table.to_dicts():
        first = [] if row["bos_token"] is None else [row["bos_token"]]
        assert row["text"].endswith(f" to {row['answer']}")
        for text, tokens in (("text", "tokens"), ("donor_text", "donor_tokens")):
            ids = tokenizer(row[text], add_special_tokens=False)["input_ids"]
            assert row[tokens] == first + ids
        assert row["tokens"][-1] == row["answer_token"] == names[row["answer"]]
        assert row["subject_token"] == names[row["subject"]]
        assert row["answer"] != row["subject"]
        assert row["tokens"].count(row["subject_token"]) == 2
        assert row["tokens"].count(row["answer_token"]) == 2
        sentence = TEMPLATES[row["template"]]
        people = (row["answer"], row["subject"])
        one, other = people if row["order"] == ABBA else people[::-1]
        filled = sentence.format(
            first=one,
            second=other,
            giver=row["subject"],
            place=row["place"],
            object=row["object"],
        )
        assert row["text"] == f"{filled} {row['answer']}"


def test_all_are_of_one_length(table):
    lengths = {len(row) for name in ("tokens", "donor_tokens") for row in table[name]}
    assert len(lengths) == 1


def test_partners_are_the_sentence_with_other_names_each_once(table, tokenizer):
    names = set(single_token_names(tokenizer).values())
    for row in table.to_dicts():
        own, theirs = row["tokens"], row["donor_tokens"]
        places = [at for at, token in enumerate(own) if token in names]
        assert places == [at for at, token in enumerate(theirs) if token in names]
        others = [theirs[at] for at in places]
        assert len(set(others)) == 4
        assert not {own[at] for at in places} & set(others)
        kept = [
            (a, b) for at, (a, b) in enumerate(zip(own, theirs, strict=True)) if at not in places
        ]
        assert all(a == b for a, b in kept)


def test_both_orders_are_as_many_in_every_template(table):
    assert table["order"].to_list() == [ABBA, BABA] * (PROMPTS // 2)
    counts = table.group_by("template", "order").len()
    for rows in counts.partition_by("template"):
        assert sorted(rows["order"]) == [ABBA, BABA]
        assert rows["len"].n_unique() == 1


def test_prompts_depend_on_the_seed_and_not_on_their_number(tokenizer):
    few, many, others = (
        ioi_prompts(tokenizer, prompts=count, seed=seed)
        for count, seed in ((6, 0), (20, 0), (6, 1))
    )
    assert few.equals(many.head(6))
    assert few["text"].to_list() != others["text"].to_list()


def test_lists_are_what_prompts_are_drawn_from():
    for each in (TEMPLATES, PLACES, OBJECTS, NAMES):
        assert len(set(each)) == len(each)
    assert len(TEMPLATES) >= 15
    for sentence in TEMPLATES:
        for place in ("{first}", "{second}", "{giver}", "{place}", "{object}"):
            assert sentence.count(place) == 1
            assert f" {place}" in sentence  # so that a name is a token with its space
        assert sentence.endswith(" to")


def test_names_that_are_several_tokens_are_left_out():
    some = tokenizer_of([*NAMES[:20], "and", "the", "to"])
    assert sorted(single_token_names(some)) == sorted(NAMES[:20])
    used = set(ioi_prompts(some, prompts=40, seed=0)["answer"])
    assert used <= set(NAMES[:20])


def test_too_few_names_are_refused_in_one_line():
    with pytest.raises(InputError, match=rf"0 of {len(NAMES)} names .* at least {FEWEST_NAMES}"):
        ioi_prompts(tiny_tokenizer(), prompts=2, seed=0)


def test_a_sentence_that_swallows_its_names_is_refused(monkeypatch):
    monkeypatch.setattr(
        ioi, "TEMPLATES", ("With{first}, {second} gave{giver} a {place} {object} to",)
    )
    with pytest.raises(InputError, match="cuts no sentence"):
        ioi_prompts(SUBWORDS, prompts=2, seed=0)


def test_tables_have_one_schema(table):
    assert table.schema == no_ioi_prompts().schema
    assert list(table.schema) == list(SCHEMA)
