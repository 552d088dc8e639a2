"""Files that a store has sent otherwise than recorded are deleted, in DVC's cache and in their places."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
import yaml

from checkouts import ROOT
from damage import flip

sys.path.insert(0, str(ROOT / "workflow/scripts"))

from common.recorded_files import OBJECTS, delete_wrong, recorded_md5

FILES = {"results/a.bin": b"numbers", "results/b.txt": b"words", "figures/c.svg": b"<svg/>"}


def keep(checkout: Path, content: bytes, ending: str = "") -> tuple[str, Path]:
    """Put content into the cache; its MD5 and its place."""
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + ending
    kept = checkout / OBJECTS[0] / md5[:2] / md5[2:]
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(content)
    return md5, kept


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """One file recorded by itself, a folder of two by its listing; all in the cache and in their places."""
    listed = []
    for path, content in FILES.items():
        place = tmp_path / path
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content)
        listed.append({"path": path, "md5": keep(tmp_path, content)[0]})
    entries = [{"md5": each["md5"], "relpath": Path(each["path"]).name} for each in listed[:2]]
    folder, _ = keep(tmp_path, json.dumps(entries).encode(), ".dir")
    outs = [{"path": "results", "md5": folder}, listed[2]]
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": {"all": {"outs": outs}}}))
    return tmp_path


def test_what_is_as_recorded_stays(checkout: Path):
    assert delete_wrong(checkout) == []
    assert all((checkout / path).read_bytes() == content for path, content in FILES.items())


def test_a_wrong_file_goes_from_cache_and_place(checkout: Path):
    md5 = recorded_md5(checkout, ("results/",))["results/a.bin"]
    kept = checkout / OBJECTS[0] / md5[:2] / md5[2:]
    for path in (kept, checkout / "results/a.bin"):
        flip(path)
    assert delete_wrong(checkout) == ["results/a.bin"]
    assert not kept.exists()
    assert not (checkout / "results/a.bin").exists()
    assert (checkout / "results/b.txt").exists()
    assert delete_wrong(checkout) == []


def test_a_file_that_was_made_here_since_stays(checkout: Path):
    (checkout / "figures/c.svg").write_bytes(b"another")
    assert delete_wrong(checkout) == []
    assert (checkout / "figures/c.svg").read_bytes() == b"another"


def test_a_wrong_listing_of_a_folder_goes_too(checkout: Path):
    (listing,) = (checkout / OBJECTS[0]).rglob("*.dir")
    listing.write_bytes(b"\xa4 no listing")
    assert delete_wrong(checkout) == ["results"]
    assert not listing.exists()


def test_nothing_recorded(tmp_path: Path):
    assert delete_wrong(tmp_path) == []
