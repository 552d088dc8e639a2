"""Sampling documents: only those long enough and undamaged, and no more than prompts need."""

from pathlib import Path

import pytest

from invented_text import source, words, write_documents
from selfrepair.errors import InputError
from selfrepair.text.documents import sample_documents


@pytest.fixture
def text_file(tmp_path):
    return write_documents(tmp_path / "documents.txt")


def sample(sources, **more):
    settings = {"prompts": 6, "tokens_per_prompt": 8, "seed": 3, "wheels": {}, "cache": Path()}
    return sample_documents(sources, **(settings | more))


def test_refuses_a_source_without_a_document_long_enough(text_file):
    with pytest.raises(InputError, match=r"text\.sources\.mine: none of its 9 documents"):
        sample({"mine": source(text_file)}, tokens_per_prompt=5000)


def test_documents_that_lost_characters_are_left_out(tmp_path):
    path = tmp_path / "mixed.txt"
    path.write_text(words(30) + "\n\n\n" + words(30) + " Schr?der M\ufffdller")
    assert sample({"mine": source(path)})["document"].to_list() == ["mixed.txt 0"]


def test_the_order_depends_on_the_seed_and_the_name_of_the_source(text_file):
    order = sample({"mine": source(text_file)})["document"].to_list()
    assert order == sample({"mine": source(text_file)})["document"].to_list()
    assert order != sample({"mine": source(text_file)}, seed=4)["document"].to_list()
    both = sample({"other": source(text_file), "mine": source(text_file)}, prompts=12)
    assert both.filter(source="mine")["document"].to_list() == order


def test_no_more_documents_are_kept_than_certainly_hold_the_prompts(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("\n\n\n".join(words(100, start=i) for i in range(20)))
    few, many = (sample({"mine": source(path)}, prompts=n)["document"] for n in (3, 15))
    assert (len(few), len(many)) == (3, 15)
    assert many.head(3).equals(few)


def test_a_source_that_no_prompt_comes_from_is_not_read(text_file):
    sources = {"mine": source(text_file, weight=100), "missing": source("nowhere.txt", weight=1)}
    assert set(sample(sources)["source"]) == {"mine"}
