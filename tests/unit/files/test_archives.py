"""Packed shards come back bit by bit, and never others than those that were gathered."""

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
