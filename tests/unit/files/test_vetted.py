"""What was looked through is not again, and what is damaged since is found by its hash alone."""

from pathlib import Path

import pytest

from damage import flip
from selfrepair.files.storage import read_json, write_json
from selfrepair.files.vetted import changed_since, has_sums, is_vetted, note_vetted, seen_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, one file of which lies behind a link."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (tmp_path / "blob").write_bytes(b"weights")
    (made / "model.safetensors").symlink_to(tmp_path / "blob")
    return made


@pytest.fixture
def cache(tmp_path: Path, folder: Path) -> Path:
    """Notes on the folder as it is."""
    assert not is_vetted(folder, tmp_path / "cache")
    note_vetted(folder, tmp_path / "cache", seen=seen_in(folder))
    return tmp_path / "cache"


def test_a_folder_is_vetted_until_a_file_changes(folder: Path, cache: Path):
    assert is_vetted(folder, cache)
    assert changed_since(folder, cache) == []
    (folder / "more.json").write_text("{}")
    assert not is_vetted(folder, cache)


def test_a_bit_that_flips_behind_the_same_size_and_time_is_found(folder: Path, cache: Path):
    flip(folder / "model.safetensors")
    assert is_vetted(folder, cache)
    assert changed_since(folder, cache) == [folder / "model.safetensors"]


def test_a_file_that_is_gone_or_cut_is_found(folder: Path, cache: Path):
    (folder / "config.json").unlink()
    (folder / "model.safetensors").write_bytes(b"wei")
    assert changed_since(folder, cache) == [folder / "config.json", folder / "model.safetensors"]


def test_another_time_is_no_damage(folder: Path, cache: Path):
    (folder / "config.json").touch()
    assert not is_vetted(folder, cache)
    assert changed_since(folder, cache) == []


def test_notes_of_before_without_hashes_are_known_and_completed(folder: Path, cache: Path):
    notes = cache / "vetted.json"
    (place, seen), *_ = read_json(notes).items()
    write_json(notes, {place: {name: entry[:2] for name, entry in seen.items()}})
    assert is_vetted(folder, cache)
    assert not has_sums(folder, cache)
    assert changed_since(folder, cache) == []
    note_vetted(folder, cache, seen=seen_in(folder))
    assert has_sums(folder, cache)
    flip(folder / "config.json", 0)
    assert changed_since(folder, cache) == [folder / "config.json"]


def test_a_single_file(tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text("words")
    note_vetted(text, tmp_path, seen=seen_in(text))
    assert is_vetted(text, tmp_path)
    flip(text)
    assert changed_since(text, tmp_path) == [text]


def test_what_changes_while_it_is_looked_through_is_not_noted(folder: Path, tmp_path: Path):
    seen = seen_in(folder)
    (folder / "model.safetensors").write_bytes(b"other weights")
    note_vetted(folder, tmp_path / "cache", seen=seen)
    assert not is_vetted(folder, tmp_path / "cache")
