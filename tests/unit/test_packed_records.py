"""Snakemake's records in one archive: what is packed, what a pulled archive replaces, and what is refused."""

import base64
import io
import json
import os
import sys
import tarfile
from pathlib import Path

import pytest

from checkouts import ROOT
from damage import flip
from selfrepair.errors import InputError

sys.path.insert(0, str(ROOT / "workflow/scripts"))

from common.packed_records import ARCHIVE, NOTED, pack_records, unpack_records
from common.records import FOLDER

ABOUT = ("results/x/", "figures/x/")
HEADS, DEPTH = "results/x/gpt2/heads.parquet", "results/x/gpt2/depth.parquet"
OTHER, LONG = "results/y/gpt2/heads.parquet", f"results/x/{'long/' * 60}heads.parquet"


def place(checkout: Path, path: str) -> Path:
    """Where Snakemake has the record of a file."""
    name = base64.urlsafe_b64encode(path.encode()).decode()
    pieces = [name[at : at + 254] for at in range(0, len(name), 254)]
    return checkout.joinpath(FOLDER, *(f"@{piece}" for piece in pieces[:-1]), pieces[-1])


def write(checkout: Path, ended: float, *paths: str) -> None:
    """The records of files as a run leaves them."""
    for path in paths:
        place(checkout, path).parent.mkdir(parents=True, exist_ok=True)
        place(checkout, path).write_text(json.dumps({"endtime": ended}))


def ended(checkout: Path) -> dict[str, float]:
    """When each file was made that there is a record of."""
    found = {path: place(checkout, path) for path in (HEADS, DEPTH, OTHER, LONG)}
    return {
        path: json.loads(file.read_text())["endtime"]
        for path, file in found.items()
        if file.exists()
    }


def pull(checkout: Path, origin: Path) -> None:
    """What DVC does with the archive of another checkout, and what follows."""
    (checkout / ARCHIVE).parent.mkdir(parents=True, exist_ok=True)
    (checkout / ARCHIVE).write_bytes((origin / ARCHIVE).read_bytes())
    unpack_records(checkout)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A checkout whose records are packed, and that has those of another study too."""
    checkout = tmp_path / "origin"
    write(checkout, 1, HEADS, DEPTH, OTHER, LONG)
    pack_records(checkout, ABOUT)
    return checkout


@pytest.fixture
def clone(origin: Path, tmp_path: Path) -> Path:
    """A checkout that has pulled them."""
    pull(tmp_path / "clone", origin)
    return tmp_path / "clone"


def test_a_clone_has_the_recorded_studies_byte_by_byte(origin, clone):
    assert ended(clone) == {HEADS: 1, DEPTH: 1, LONG: 1}
    for path in ended(clone):
        assert place(clone, path).read_bytes() == place(origin, path).read_bytes()


def test_the_same_records_give_the_same_archive(origin, clone):
    packed = (origin / ARCHIVE).read_bytes()
    for path in ended(clone):
        os.utime(place(clone, path), (7, 7))
    (clone / ARCHIVE).unlink()
    pack_records(clone, ABOUT)
    assert (clone / ARCHIVE).read_bytes() == packed


def test_a_new_archive_replaces_what_was_packed_or_unpacked(origin, clone):
    """Whichever is newer: another revision is checked out."""
    write(origin, 5, HEADS)
    place(origin, DEPTH).unlink()
    old = (origin / ARCHIVE).read_bytes()
    pack_records(origin, ABOUT)
    pull(clone, origin)
    assert ended(clone) == {HEADS: 5, LONG: 1}
    (origin / ARCHIVE).write_bytes(old)
    unpack_records(origin)
    assert ended(origin) == {HEADS: 1, DEPTH: 1, LONG: 1, OTHER: 1}


def test_what_ran_here_since_stays_if_it_is_newer(origin, clone):
    write(clone, 9, HEADS, OTHER)
    write(clone, 2, DEPTH)
    write(origin, 5, HEADS, DEPTH)
    pack_records(origin, ABOUT)
    pull(clone, origin)
    assert ended(clone) == {HEADS: 9, DEPTH: 5, LONG: 1, OTHER: 9}


def test_an_archive_is_unpacked_once(clone):
    place(clone, HEADS).unlink()
    unpack_records(clone)
    assert HEADS not in ended(clone)
    (clone / NOTED).unlink()
    unpack_records(clone)
    assert ended(clone)[HEADS] == 1


def test_packing_keeps_what_a_pull_has_just_brought(origin, tmp_path):
    """Of a study, say, that was recorded elsewhere, before anything has run here."""
    checkout = tmp_path / "another"
    write(checkout, 2, LONG)
    (checkout / ARCHIVE).write_bytes((origin / ARCHIVE).read_bytes())
    pack_records(checkout, ABOUT)
    pull(tmp_path / "clone", checkout)
    assert ended(tmp_path / "clone") == {HEADS: 1, DEPTH: 1, LONG: 2}


def test_without_records_nothing_is_packed(tmp_path):
    unpack_records(tmp_path)
    with pytest.raises(InputError, match="no records of results/x/, figures/x/; run the study"):
        pack_records(tmp_path, ABOUT)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def text(path: Path) -> None:
    path.write_text("not an archive")


@pytest.mark.parametrize("damage", [flip, cut, text])
def test_a_damaged_archive_is_refused_in_one_line_and_changes_nothing(clone, damage):
    before = ended(clone)
    damage(clone / ARCHIVE)
    for use in (unpack_records, lambda checkout: pack_records(checkout, ABOUT)):
        with pytest.raises(InputError) as refused:
            use(clone)
        assert "\n" not in str(refused.value)
        assert str(refused.value).startswith(f"{clone / ARCHIVE}: cannot be read (")
        assert str(refused.value).endswith("delete it, and `make pull` gets it again")
    assert ended(clone) == before


@pytest.mark.parametrize(
    "member", ["../../outside", "/tmp/outside", "a/b", "..", "@a/../b", "link", "a\n"]
)
def test_nothing_is_unpacked_that_is_no_record(clone, member, tmp_path):
    entry = tarfile.TarInfo(member)
    if member == "link":
        entry.type, entry.linkname = tarfile.SYMTYPE, str(tmp_path)
    with tarfile.open(clone / ARCHIVE, "w:xz") as packed:
        packed.addfile(tarfile.TarInfo("bmV3"))
        packed.addfile(entry, io.BytesIO())
    with pytest.raises(InputError, match="in it is no record"):
        unpack_records(clone)
    assert not (clone / FOLDER / "bmV3").exists()
