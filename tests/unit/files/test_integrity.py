"""What is damaged, swapped, missing or of another measurement is found by its hash."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from damage import flip
from selfrepair.files.archives import pack_shards
from selfrepair.files.integrity import Digests, changed_files, damaged_tensors, lacking_shards
from selfrepair.files.shards import gather
from selfrepair.files.storage import write_json, write_tensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep of two shards with its index, and tensors of their own beside it."""
    shards = [tmp_path / f"sweeps/zero/shard-{number}of2.safetensors" for number in (0, 1)]
    for number, shard in enumerate(shards):
        provenance = {"prompts": [4 * number, 4 * number + 4], "wall_seconds": 1.0}
        write_tensors(shard, {"effect": torch.full((4,), float(number))}, provenance)
    index = tmp_path / "sweeps/zero.json"
    write_json(index, gather(shards, relative_to=index.parent))
    write_tensors(tmp_path / "clean.safetensors", {"top": torch.zeros(3)}, {})
    return tmp_path


def faults(folder: Path) -> dict[str, str]:
    found = [
        *damaged_tensors(folder, Digests(), remedy="run again"),
        *lacking_shards(folder, remedy="run again"),
    ]
    return {str(fault.path.relative_to(folder)): fault.what for fault in found}


def test_what_is_whole_is_not_mentioned(folder):
    assert faults(folder) == {}


@pytest.mark.parametrize("name", ["clean", "sweeps/zero/shard-1of2"])
def test_one_damaged_byte_of_tensors_is_found(folder, name):
    flip(folder / f"{name}.safetensors", at=-1)
    found = faults(folder)
    assert list(found) == [f"{name}.safetensors"]
    assert "differs from the checksum" in found[f"{name}.safetensors"]


def test_a_fault_is_one_line_with_its_remedy(folder):
    flip(folder / "clean.safetensors", at=-1)
    (fault,) = damaged_tensors(folder, Digests(), remedy="make study makes it again")
    assert str(fault) == (
        f"{folder}/clean.safetensors: damaged: differs from the checksum in clean.json; "
        "make study makes it again"
    )


def test_swapped_sidecars_are_told_from_damaged_shards(folder):
    first, second = (folder / f"sweeps/zero/shard-{number}of2.json" for number in (0, 1))
    contents = first.read_bytes(), second.read_bytes()
    second.write_bytes(contents[0])
    first.write_bytes(contents[1])
    found = faults(folder)
    assert set(found) == {"sweeps/zero/shard-0of2.json", "sweeps/zero/shard-1of2.json"}
    assert "does not vouch for shard-0of2.safetensors" in found["sweeps/zero/shard-0of2.json"]


def test_a_shard_of_another_measurement_is_found_by_the_index(folder):
    """Whole, and vouched for by its sidecar, but not what the index was made from."""
    shard = folder / "sweeps/zero/shard-0of2.safetensors"
    write_tensors(shard, {"effect": torch.ones(4)}, {"prompts": [0, 4], "wall_seconds": 1.0})
    assert faults(folder) == {
        "sweeps/zero/shard-0of2.safetensors": "is not the shard that its index lists"
    }


def test_sidecars_that_are_missing_or_no_sidecars_are_named(folder):
    (folder / "clean.json").unlink()
    (folder / "sweeps/zero/shard-0of2.json").write_text('{"sha')
    (folder / "sweeps/zero/shard-1of2.json").write_text("[]")
    found = faults(folder)
    assert "nothing vouches for clean.safetensors" in found.pop("clean.json")
    assert set(found.values()) == {"damaged: is no sidecar"}


def test_a_missing_shard_is_a_fault_unless_it_is_packed(folder):
    index, shard = folder / "sweeps/zero.json", folder / "sweeps/zero/shard-1of2.safetensors"
    shard.unlink()
    assert faults(folder) == {
        "sweeps/zero/shard-1of2.safetensors": "missing, and zero.json lists it"
    }
    write_tensors(
        shard, {"effect": torch.ones(4)}, json.loads(shard.with_suffix(".json").read_text())
    )
    pack_shards(index)
    shard.unlink()
    assert faults(folder) == {}


def test_an_index_that_cannot_be_read_is_named(folder):
    index = folder / "sweeps/zero.json"
    index.write_text(index.read_text()[:-20])
    assert faults(folder) == {"sweeps/zero.json": "damaged: cannot be read"}


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_files_are_compared_with_the_hashes_that_were_noted(folder, algorithm):
    table, other = folder / "heads.parquet", folder / "depth.parquet"
    table.write_bytes(b"a table")
    other.write_bytes(b"another")
    noted = {path: hashlib.new(algorithm, path.read_bytes()).hexdigest() for path in (table, other)}
    noted[folder / "gone.parquet"] = "0"
    flip(table, at=-1)
    pieces: list[int] = []
    digests = Digests(pieces.append)
    found = changed_files(noted, digests, algorithm=algorithm, what="changed", remedy="run again")
    assert [fault.path for fault in found] == [table]
    assert sum(pieces) == 14


def test_a_clean_pass_without_shards_is_one_that_a_store_left_out(folder):
    """Of any other measurement, and of one shard of several, it is a fault."""

    def lacking() -> set[str]:
        return {fault.path.name for fault in lacking_shards(folder, remedy="run again")}

    shards = [folder / f"sweeps/zero/shard-{number}of2.safetensors" for number in (0, 1)]
    (folder / "sweeps/clean").mkdir()
    index = (folder / "sweeps/zero.json").read_text().replace("zero/", "clean/")
    (folder / "sweeps/clean.json").write_text(index)
    assert lacking() == set()
    shards[0].rename(folder / "sweeps/clean" / shards[0].name)
    assert lacking() == {shard.name for shard in shards}
    shards[1].unlink()
    (folder / "sweeps/clean.json").unlink()
    assert lacking() == {shard.name for shard in shards}
