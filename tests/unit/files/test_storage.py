"""Files are whole or absent, and refused when their content is not what was written."""

import json

import pytest
import torch

from selfrepair.errors import InputError
from selfrepair.files.shards import gather, read_sweep
from selfrepair.files.storage import (
    atomic,
    read_tensors,
    rounded,
    sidecar,
    write_json,
    write_tensors,
)


def test_an_error_leaves_nothing_behind_and_the_old_file_alone(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half():
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"


def test_tensors_come_back_with_their_provenance(tmp_path):
    path = tmp_path / "deep" / "x.safetensors"
    write_tensors(path, {"a": torch.arange(6.0).view(2, 3).T}, {"seed": 4})
    tensors, provenance = read_tensors(path)
    assert torch.equal(tensors["a"], torch.arange(6.0).view(2, 3).T)
    assert provenance["seed"] == 4


def damage_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize("damage", [damage_byte, truncate])
def test_damaged_tensors_are_refused(tmp_path, damage):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(4)}, {})
    damage(path)
    with pytest.raises(InputError, match=r"x\.safetensors: content differs") as error:
        read_tensors(path)
    assert "\n" not in str(error.value)


def test_missing_or_broken_sidecar_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(4)}, {})
    sidecar(path).write_text("{")
    with pytest.raises(InputError, match=r"x\.json: cannot be read"):
        read_tensors(path)
    sidecar(path).unlink()
    with pytest.raises(InputError, match=r"x\.json: cannot be read"):
        read_tensors(path)


def shard(folder, number, first, last, value, **more):
    path = folder / "resample" / f"shard-{number}of2.safetensors"
    provenance = {
        "study": "s", "model": "m", "ablation": "resample", "dtype": "float32",
        "prompts": [first, last], "conservation_error": value, "decomposition_error": 2 * value,
        "wall_seconds": 1.5, **more,
    }  # fmt: skip
    write_tensors(path, {"self_repair": torch.full((last - first, 2), value)}, provenance)
    return path


def test_a_gathered_sweep_joins_its_shards_in_order(tmp_path):
    paths = [shard(tmp_path, 0, 0, 3, 0.25), shard(tmp_path, 1, 3, 5, 0.5)]
    index = tmp_path / "resample.json"
    write_json(index, gather(paths, relative_to=tmp_path))
    content = json.loads(index.read_text())
    assert content["prompts"] == 5
    assert content["conservation_error"] == 0.5
    assert content["decomposition_error"] == 1.0
    assert content["wall_seconds"] == 3.0
    joined = read_sweep(index)["self_repair"]
    assert torch.equal(joined[:, 0], torch.tensor([0.25] * 3 + [0.5] * 2))


def test_gather_refuses_shards_that_do_not_follow_each_other(tmp_path):
    paths = [shard(tmp_path, 0, 0, 3, 0.25), shard(tmp_path, 1, 4, 5, 0.5)]
    with pytest.raises(InputError, match="starts at prompt 4 where 3 was due"):
        gather(paths, relative_to=tmp_path)


def test_gather_refuses_shards_of_two_commits_of_a_model(tmp_path):
    paths = [
        shard(tmp_path, 0, 0, 3, 0.25, model_commit="a"),
        shard(tmp_path, 1, 3, 5, 0.5, model_commit="b"),
    ]
    with pytest.raises(InputError, match="its model_commit is b, that of the first shard a"):
        gather(paths, relative_to=tmp_path)


def test_a_replaced_shard_is_refused_even_if_it_vouches_for_itself(tmp_path):
    paths = [shard(tmp_path, 0, 0, 3, 0.25), shard(tmp_path, 1, 3, 5, 0.5)]
    index = tmp_path / "resample.json"
    write_json(index, gather(paths, relative_to=tmp_path))
    shard(tmp_path, 1, 3, 5, 0.75)
    with pytest.raises(InputError, match=r"is not the shard that resample\.json lists"):
        read_sweep(index)


def test_rounding_is_bounded_told_and_leaves_out_what_must_stay_exact():
    values = torch.linspace(-7, 7, 1001)
    tensors = {"a": values, "kept": values, "large": values * 1e5, "hole": values.clone()}
    tensors["hole"][3] = torch.nan
    out, errors = rounded(tensors, "float16", keep=["kept"])
    assert out["a"].dtype == out["hole"].dtype == torch.float16
    assert out["kept"] is tensors["kept"]
    assert out["large"].dtype == torch.float32  # float16 cannot hold it
    assert set(errors) == {"a", "hole"}
    assert errors["a"] == float((out["a"].float() - values).abs().max())
    assert 0 < errors["a"] <= 7 * 2**-11
    assert out["hole"].isnan().sum() == 1
    assert rounded(tensors, "float32", keep=[]) == (tensors, {})
