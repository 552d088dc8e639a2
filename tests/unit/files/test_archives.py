"""Packed shards come back bit by bit, and never others than those that were gathered."""

import io
import json
import lzma
import tarfile
import tracemalloc

import numpy as np
import pytest
import torch

from selfrepair.errors import InputError
from selfrepair.files.archives import archive_of, pack_shards, restore_shards
from selfrepair.files.shards import gather, read_shards
from selfrepair.files.storage import write_json, write_tensors


def gathered(folder, value=1.0):
    """A measurement of two shards that compress well, and its index."""
    paths = []
    for number in range(2):
        paths.append(folder / "mean" / f"shard-{number}of2.safetensors")
        provenance = {"prompts": [number, number + 1], "wall_seconds": 1.0}
        write_tensors(paths[-1], {"x": torch.full((5000,), value + number)}, provenance)
    write_json(folder / "mean.json", gather(paths, relative_to=folder))
    return folder / "mean.json", paths


def test_shards_come_back_bit_by_bit_and_no_newer_than_their_index(tmp_path):
    index, paths = gathered(tmp_path)
    contents = [path.read_bytes() for path in paths]
    pack_shards(index)
    archive = archive_of(index)
    assert archive.name == "mean.tar.xz"
    assert archive.stat().st_size < sum(map(len, contents)) / 10
    paths[0].unlink()
    restore_shards(index)
    paths[1].unlink()
    restore_shards(index)
    assert [path.read_bytes() for path in paths] == contents
    assert all(path.stat().st_mtime_ns == index.stat().st_mtime_ns for path in paths)
    assert read_shards(index)[1]["x"][0] == 2.0
    assert sorted(path.name for path in (tmp_path / "mean").iterdir()) == [
        f"shard-{number}of2.{ending}" for number in (0, 1) for ending in ("json", "safetensors")
    ]


def test_packing_again_changes_nothing_and_needs_no_shards(tmp_path):
    index, paths = gathered(tmp_path)
    pack_shards(index)
    archive = archive_of(index)
    before = archive.stat().st_mtime_ns, archive.read_bytes()
    for path in paths:
        path.unlink()
    pack_shards(index)
    assert (archive.stat().st_mtime_ns, archive.read_bytes()) == before
    assert not paths[0].exists()
    archive.unlink()
    gathered(tmp_path)
    pack_shards(index)
    assert archive.read_bytes() == before[1]


def test_a_shard_of_another_revision_gives_way_to_the_packed_one(tmp_path):
    index, paths = gathered(tmp_path)
    pack_shards(index)
    content = paths[1].read_bytes()
    paths[1].write_bytes(content[:-4] + b"\0\0\0\1")
    restore_shards(index)
    assert paths[1].read_bytes() == content


def test_a_shard_measured_again_is_not_replaced_by_the_packed_one(tmp_path):
    index, paths = gathered(tmp_path)
    pack_shards(index)
    write_tensors(paths[1], {"x": torch.full((5000,), 9.0)}, {"prompts": [1, 2]})
    measured = paths[1].read_bytes()
    with pytest.raises(InputError, match="measured again since"):
        restore_shards(index)
    assert paths[1].read_bytes() == measured


def test_what_was_measured_anew_is_packed_anew(tmp_path):
    index, paths = gathered(tmp_path)
    pack_shards(index)
    index, paths = gathered(tmp_path, value=3.0)
    pack_shards(index)
    paths[0].unlink()
    restore_shards(index)
    assert read_shards(index)[0]["x"][0] == 3.0


def test_shards_of_another_measurement_are_not_taken(tmp_path):
    index, paths = gathered(tmp_path)
    pack_shards(index)
    index, paths = gathered(tmp_path, value=3.0)
    paths[1].unlink()
    with pytest.raises(InputError, match=r"mean\.tar\.xz: does not hold the mean/shard-1of2"):
        restore_shards(index)
    with pytest.raises(InputError, match="does not hold"):
        pack_shards(index)


def test_a_damaged_archive_is_named(tmp_path):
    index, paths = gathered(tmp_path)
    pack_shards(index)
    archive = archive_of(index)
    content = archive.read_bytes()
    paths[0].unlink()
    for broken in (content[: len(content) // 2], b"not one"):
        archive.write_bytes(broken)
        with pytest.raises(InputError, match=r"mean\.tar\.xz: cannot be read"):
            restore_shards(index)


def test_without_an_archive_a_missing_shard_is_left_to_those_who_read_it(tmp_path):
    index, paths = gathered(tmp_path)
    paths[0].unlink()
    restore_shards(index)
    with pytest.raises(InputError, match="missing; run the workflow again"):
        read_shards(index)


# --- archives that were made to harm ------------------------------------------------------------

SHARD = "mean/shard-0of2.safetensors"


def packed(archive, members):
    """An archive of (name, type, content); a type may be a link or a device."""
    with tarfile.open(archive, "w:xz") as out:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, "/etc/hostname", len(content)
            out.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, tarfile.REGTYPE) for name in ("../outside", "/tmp/outside", "mean/../../outside")),
        *((SHARD, kind) for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE)),
        *((SHARD, kind) for kind in (tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)),
    ],
)
def test_nothing_is_written_but_the_files_that_the_index_lists(tmp_path, name, kind):
    folder = tmp_path / "results"
    index, paths = gathered(folder)
    paths[0].unlink()
    before = sorted(tmp_path.rglob("*"))
    packed(archive_of(index), [(name, kind, b"x" * 9)])
    with pytest.raises(InputError, match="does not hold"):
        restore_shards(index)
    archive_of(index).unlink()
    assert sorted(tmp_path.rglob("*")) == before


def test_another_content_under_a_listed_name_is_not_written(tmp_path):
    index, paths = gathered(tmp_path)
    paths[0].unlink()
    packed(archive_of(index), [(SHARD, tarfile.REGTYPE, b"another")])
    with pytest.raises(InputError, match="does not hold"):
        restore_shards(index)
    assert not paths[0].exists()


@pytest.mark.parametrize(
    "path", ["../outside.safetensors", "/tmp/outside.safetensors", "a/../../b"]
)
def test_an_index_lists_files_beside_it(tmp_path, path):
    index, _ = gathered(tmp_path)
    content = json.loads(index.read_text())
    content["files"][0]["path"] = path
    index.write_text(json.dumps(content))
    packed(archive_of(index), [(path, tarfile.REGTYPE, b"x")])
    with pytest.raises(InputError, match="which is not beside it"):
        restore_shards(index)


@pytest.mark.parametrize("name", [SHARD, "other"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, name, kind):
    """5 GB of zeros behind a header; what stands there need not be read to see how much it is."""
    index, paths = gathered(tmp_path)
    paths[0].unlink()
    member = tarfile.TarInfo(name)
    member.size, member.type = 5 << 30, kind
    archive_of(index).write_bytes(lzma.compress(member.tobuf() + bytes(1 << 20)))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"unpacks to 5,368,\d+,\d+ bytes, far more"):
        restore_shards(index)
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


def test_a_fuzzed_archive_is_refused_or_gives_the_shard(tmp_path):
    index, paths = gathered(tmp_path)
    pack_shards(index)
    archive, rng = archive_of(index), np.random.default_rng(0)
    content, shard = archive.read_bytes(), paths[0].read_bytes()
    plain = lzma.decompress(content)
    for number in range(100):
        paths[0].unlink(missing_ok=True)
        # Of every other the fuzz is inside, where no checksum of xz finds it.
        fuzzed = bytearray(plain[:512] if number % 2 else content)
        for _ in range(rng.integers(1, 4)):
            fuzzed[rng.integers(0, len(fuzzed))] = rng.integers(0, 256)
        archive.write_bytes(lzma.compress(fuzzed + plain[512:]) if number % 2 else fuzzed)
        try:
            restore_shards(index)
        except InputError as error:
            message = str(error)
        else:
            assert paths[0].read_bytes() == shard
            continue
        assert "\n" not in message
        # What came before the damage may be there, and is right.
        assert not paths[0].exists() or paths[0].read_bytes() == shard
