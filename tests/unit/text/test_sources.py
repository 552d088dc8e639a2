"""Reading sources: each kind, and one clear line for what is not there."""

import hashlib
import json
import zipfile
from pathlib import Path

import datasets
import polars as pl
import pytest

from invented_text import source, words, write_documents
from selfrepair.errors import InputError
from selfrepair.files.wheels import Wheel
from selfrepair.text.sources import read_source


def read(entry, *, wheels=None, cache=Path()):
    """The texts of a source by the name of each document."""
    return dict(read_source("mine", entry, wheels=wheels or {}, cache=cache))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "nowhere.txt"}, r"text\.sources\.mine\.path: nowhere.txt is not a file"),
        ({"kind": "dataset", "dataset": "no/such-data-set", "split": "train"}, "HF_HUB_OFFLINE"),
    ],
)
def test_refuses_sources_that_are_not_there(tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as error:
        read(source(write_documents(tmp_path / "documents.txt"), **changes))
    assert "\n" not in str(error.value)


def test_reads_documents_between_two_blank_lines(tmp_path):
    path = tmp_path / "documents.txt"
    path.write_text("one\n\nstill one\n\n\ntwo\n  \n\t\nthree")
    texts = {f"documents.txt {i}": t for i, t in enumerate(["one\n\nstill one", "two", "three"])}
    assert read(source(path)) == texts


def test_refuses_a_file_of_another_kind(tmp_path):
    path = tmp_path / "documents.pdf"
    path.write_text("one")
    with pytest.raises(InputError, match=r"documents\.pdf is neither \.txt nor \.jsonl"):
        read(source(path))


def test_reads_json_lines_and_names_a_bad_line(tmp_path):
    path = tmp_path / "documents.jsonl"
    lines = [json.dumps({"body": words(30, start=i)}) for i in range(4)]
    path.write_text("\n".join(lines))
    found = read(source(path, column="body"))
    assert found == {f"line {i + 1}": words(30, start=i) for i in range(4)}
    path.write_text("\n".join([*lines, "{broken"]))
    with pytest.raises(InputError, match="line 5 of"):
        read(source(path, column="body"))


def test_reads_a_local_hugging_face_data_set(tmp_path):
    rows = [words(30, start=i) for i in range(5)]
    datasets.Dataset.from_dict({"text": rows}).to_parquet(tmp_path / "data" / "train.parquet")
    entry = source("", kind="dataset", dataset=str(tmp_path / "data"), split="train")
    assert read(entry) == {f"row {i}": text for i, text in enumerate(rows)}
    with pytest.raises(InputError, match=r"column: no column 'body'; it has text"):
        read(entry | {"column": "body"})


@pytest.fixture
def csv_wheel(tmp_path):
    """A wheel in the cache that holds a zipped CSV file of two texts."""
    texts = [words(30), None, words(30, start=9)]
    table = pl.DataFrame({"id": [1, 2, 3], "text": texts})
    inner, kept = tmp_path / "inner.zip", tmp_path / "wheels" / "texts-1.0.whl"
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("rows.csv", table.write_csv())
    kept.parent.mkdir()
    with zipfile.ZipFile(kept, "w") as archive:
        archive.write(inner, "data/rows.zip")
    return Wheel("texts", "1.0", hashlib.sha256(kept.read_bytes()).hexdigest())


def test_reads_a_zipped_csv_in_a_wheel(csv_wheel, tmp_path):
    entry = source("", kind="csv", wheel="texts", member="data/rows.zip")
    found = read(entry, wheels={"texts": csv_wheel}, cache=tmp_path)
    assert found == {"row 0": words(30), "row 2": words(30, start=9)}
    with pytest.raises(InputError, match=r"mine\.column: no column 'body'; it has id, text"):
        read(entry | {"column": "body"}, wheels={"texts": csv_wheel}, cache=tmp_path)


def test_reads_articles_and_leaves_redirects_out(tmp_path):
    import bz2

    pages = [("One", "Text of one."), ("Moved", "#REDIRECT [[One]]"), ("Two", "Text of two.")]
    export = "".join(
        f"<page><title>{title}</title><revision><text>{text}</text></revision></page>"
        for title, text in pages
    )
    kept = tmp_path / "wheels" / "texts-1.0.whl"
    kept.parent.mkdir()
    with zipfile.ZipFile(kept, "w") as archive:
        archive.writestr(
            "x.bz2", bz2.compress(f'<mediawiki xmlns="x">{export}</mediawiki>'.encode())
        )
    pinned = Wheel("texts", "1.0", hashlib.sha256(kept.read_bytes()).hexdigest())
    entry = source("", kind="wikitext", wheel="texts", member="x.bz2")
    found = read(entry, wheels={"texts": pinned}, cache=tmp_path)
    assert found == {"One": "Text of one.", "Two": "Text of two."}


def test_standard_library_gives_code_and_documentation():
    code = read(source("", kind="python_code"))
    assert all(name.endswith(".py") for name in code)
    assert "import" in code["json.py" if "json.py" in code else "ast.py"]
    assert "for" in read(source("", kind="python_docs"))
