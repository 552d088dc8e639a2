"""Shards are joined in order, and refused when they do not belong together or were replaced."""

import json

import pytest
import torch

from selfrepair.errors import InputError
from selfrepair.files.shards import SweptLayers, gather, read_sweep
from selfrepair.files.storage import write_json, write_tensors


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


@pytest.mark.parametrize(
    ("key", "one", "other"), [("model_commit", "a", "b"), ("bos_token", None, 7)]
)
def test_gather_refuses_shards_of_two_commits_or_kinds_of_prompts(tmp_path, key, one, other):
    paths = [
        shard(tmp_path, 0, 0, 3, 0.25, **{key: one}),
        shard(tmp_path, 1, 3, 5, 0.5, **{key: other}),
    ]
    with pytest.raises(InputError, match=f"its {key} is {other}, that of the first shard {one}"):
        gather(paths, relative_to=tmp_path)


def test_an_index_says_with_which_token_its_prompts_begin(tmp_path):
    paths = [
        shard(tmp_path, 0, 0, 3, 0.25, bos_token=7),
        shard(tmp_path, 1, 3, 5, 0.5, bos_token=7),
    ]
    assert gather(paths, relative_to=tmp_path)["bos_token"] == 7


def test_a_replaced_shard_is_refused_even_if_it_vouches_for_itself(tmp_path):
    paths = [shard(tmp_path, 0, 0, 3, 0.25), shard(tmp_path, 1, 3, 5, 0.5)]
    index = tmp_path / "resample.json"
    write_json(index, gather(paths, relative_to=tmp_path))
    shard(tmp_path, 1, 3, 5, 0.75)
    with pytest.raises(InputError, match=r"is not the shard that resample\.json lists"):
        read_sweep(index)


def test_a_sweep_is_read_layer_by_layer(tmp_path):
    whole = torch.arange(5 * 2 * 3 * 4.0).view(5, 2, 3, 4)
    paths = []
    for number, (first, last) in enumerate([(0, 3), (3, 5)]):
        path = tmp_path / "resample" / f"shard-{number}of2.safetensors"
        provenance = {"prompts": [first, last], "wall_seconds": 1.0}
        arrays = {"direct_effect": whole[first:last], "scale": whole[first:last, :, 0, 0]}
        write_tensors(path, arrays, provenance)
        paths.append(path)
    index = tmp_path / "resample.json"
    write_json(index, gather(paths, relative_to=tmp_path))
    layers = SweptLayers(index)
    assert len(layers) == 3
    for number, layer in enumerate(layers):
        assert list(layer) == ["direct_effect"]
        assert torch.equal(layer["direct_effect"], whole[:, :, number])
    assert torch.equal(layers[1:][1]["direct_effect"], whole[:, :, 2])
    with pytest.raises(IndexError):
        layers[3]
