"""Shards are joined in order, and refused when they do not belong together or were replaced."""

import json

import pytest
import torch

from selfrepair.errors import InputError
from selfrepair.files.shards import SummedLayers, gather, read_instances
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
    joined = read_instances(index)["self_repair"]
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
        read_instances(index)


def index_of(folder, shards):
    """The index of shards of 3 and 2 prompts with these tensors."""
    paths = []
    for number, (tensors, rows) in enumerate(zip(shards, [(0, 3), (3, 5)], strict=True)):
        path = folder / "resample" / f"shard-{number}of2.safetensors"
        write_tensors(path, tensors, {"prompts": [*rows], "wall_seconds": 1.0})
        paths.append(path)
    index = folder / "resample.json"
    write_json(index, gather(paths, relative_to=folder))
    return index


def test_sums_are_read_layer_by_layer(tmp_path):
    sums = torch.arange(5 * 2 * 4.0, dtype=torch.float64).view(5, 2, 4)
    bins = torch.arange(2 * 2 * 4 * 3 * 7, dtype=torch.int32).view(2, 2, 4, 3, 7)
    groups = torch.arange(10, dtype=torch.int32).view(5, 2)
    shards = [
        {"top.tokens": sums[rows], "top.bins": bins[number], "top.group_tokens": groups[rows]}
        for number, rows in enumerate((slice(3), slice(3, 5)))
    ]
    layers = SummedLayers(index_of(tmp_path, shards))
    assert len(layers) == 2
    for number, layer in enumerate(layers):
        assert set(layer) == {"top.tokens", "top.bins"}
        assert torch.equal(layer["top.tokens"], sums[:, number])
        assert torch.equal(layer["top.bins"], bins[:, number].sum(0))
    assert list(layers.per_prompt) == ["top.group_tokens"]
    assert torch.equal(layers.per_prompt["top.group_tokens"], groups)
    assert torch.equal(layers[1:][0]["top.tokens"], sums[:, 1])
    with pytest.raises(IndexError):
        layers[2]


def test_instances_are_joined_without_a_map(tmp_path):
    shards = [
        {"prompt": torch.tensor([0, 2], dtype=torch.int32), "map.sums": torch.ones(2, 2, 9)},
        {"prompt": torch.empty(0, dtype=torch.int32), "map.sums": torch.ones(2, 2, 9)},
    ]
    rows = read_instances(index_of(tmp_path, shards))
    assert list(rows) == ["prompt"]
    assert rows["prompt"].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("key", "one", "other"), [("tokens", "sampled", "all"), ("mapped", True, False)]
)
def test_shards_of_two_kinds_of_sweeps_are_refused(tmp_path, key, one, other):
    paths = [
        shard(tmp_path, 0, 0, 3, 0.25, **{key: one}),
        shard(tmp_path, 1, 3, 5, 0.5, **{key: other}),
    ]
    with pytest.raises(InputError, match=f"its {key} is {other}, that of the first shard {one}"):
        gather(paths, relative_to=tmp_path)
    alike = [paths[0], shard(tmp_path, 1, 3, 5, 0.5, **{key: one})]
    assert gather(alike, relative_to=tmp_path)[key] == one
