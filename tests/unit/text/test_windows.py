"""Windows: one document each, the same for every number of prompts, refused when text runs out."""

import hashlib
from pathlib import Path

import pytest

from invented_text import source, words, write_documents
from selfrepair.errors import InputError
from selfrepair.text.documents import sample_documents
from selfrepair.text.windows import cut_prompts
from tiny_models import tiny_tokenizer


@pytest.fixture
def text_file(tmp_path):
    return write_documents(tmp_path / "documents.txt")


def sample(sources, **more):
    settings = {"prompts": 6, "tokens_per_prompt": 8, "seed": 3, "wheels": {}, "cache": Path()}
    return sample_documents(sources, **(settings | more))


def cut(documents, sources, **more):
    settings = {"prompts": 6, "tokens_per_prompt": 8, "seed": 3}
    return cut_prompts(documents, tiny_tokenizer(), sources, **(settings | more))


def test_windows_come_from_one_document_each_and_say_where(text_file):
    sources = {"mine": source(text_file)}
    documents = sample(sources)
    prompts = cut(documents, sources)
    texts = dict(documents.select("sha256", "text").iter_rows())
    for row in prompts.iter_rows(named=True):
        assert len(row["tokens"]) == 8
        text = texts[row["document_sha256"]]
        span = text[row["character_start"] : row["character_end"]]
        assert span.split() == [f"w{token}" for token in row["tokens"]]
        assert (
            row["tokens"]
            == [int(w[1:]) for w in text.split()][row["token_offset"] : row["token_offset"] + 8]
        )
        assert row["sha256"] == hashlib.sha256(span.encode()).hexdigest()
        assert row["licence"] == "mine"
    assert prompts["document"].n_unique() == 6


def test_windows_of_text_alone_stay_what_they_are(text_file):
    """As they were before a beginning-of-sequence token could be put in front."""
    sources = {"mine": source(text_file)}
    prompts = cut(sample(sources), sources)
    assert prompts["document"].to_list() == [f"documents.txt {i}" for i in (3, 8, 6, 1, 5, 0)]
    assert prompts["token_offset"].to_list() == [48, 72, 8, 8, 40, 8]
    assert prompts["donor"].to_list() == [4, 2, 3, 5, 0, 1]
    assert prompts["tokens"][0].to_list() == [55, 56, 57, 58, 59, 60, 4, 5]
    assert prompts["bos_token"].to_list() == [None] * 6


def test_a_beginning_of_sequence_token_takes_the_first_place_of_each_window(text_file):
    sources = {"mine": source(text_file)}
    documents = sample(sources)
    prompts = cut(documents, sources, bos_token=1)
    texts = dict(documents.select("sha256", "text").iter_rows())
    for row in prompts.iter_rows(named=True):
        first, *rest = row["tokens"]
        assert first == row["bos_token"] == 1
        assert len(rest) == 7
        text = texts[row["document_sha256"]]
        span = text[row["character_start"] : row["character_end"]]
        assert span.split() == [f"w{token}" for token in rest]
        assert row["token_offset"] % 7 == 0
        assert text.split()[row["token_offset"]] == f"w{rest[0]}"
        assert row["sha256"] == hashlib.sha256(span.encode()).hexdigest()
    assert prompts["donor"].equals(cut(documents, sources)["donor"])


def test_a_seed_decides_everything_and_a_larger_sample_begins_with_the_smaller(text_file):
    sources = {"mine": source(text_file)}
    once, again = (cut(sample(sources), sources) for _ in range(2))
    assert once.equals(again)
    assert not once.equals(cut(sample(sources, seed=4), sources, seed=4))
    larger = cut(sample(sources, prompts=9), sources, prompts=9)
    assert larger.drop("donor").head(6).equals(once.drop("donor"))


def test_donors_are_a_derangement(text_file):
    sources = {"mine": source(text_file)}
    prompts = cut(sample(sources), sources)
    assert sorted(prompts["donor"]) == list(range(6))
    assert (prompts["donor"] != prompts["prompt"]).all()


def test_long_documents_give_more_windows_once_all_have_given_one(tmp_path):
    path = tmp_path / "two.txt"
    path.write_text(words(40) + "\n\n\n" + words(16, start=5))
    sources = {"mine": source(path)}
    prompts = cut(sample(sources), sources)
    assert set(prompts["document"].head(2)) == {"two.txt 0", "two.txt 1"}
    spans = prompts.select("document", "token_offset")
    assert spans.n_unique() == 6
    assert spans.filter(document="two.txt 0").height == 4


def test_refuses_more_prompts_than_the_text_holds(text_file):
    sources = {"mine": source(text_file)}
    with pytest.raises(InputError, match="asked for 500 prompts") as error:
        cut(sample(sources, prompts=500), sources, prompts=500)
    assert "\n" not in str(error.value)
