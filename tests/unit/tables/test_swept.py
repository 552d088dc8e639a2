"""What tables read of a sweep's files: the same whatever the shards were."""

from functools import cache

import pytest
import torch

import selfrepair
import tiny_models
from selfrepair.files.shards import SummedLayers, gather, read_instances
from selfrepair.files.storage import write_json, write_tensors
from selfrepair.measure.prompt_sums import summed
from selfrepair.tables.heads import head_tables
from selfrepair.tables.swept import DrawnHeads, SummedHeads

PROMPTS = 7
SHARDS = [[range(7)], [range(4), range(4, 7)], [range(1), range(1, 6), range(6, 7)]]


@pytest.fixture(scope="module")
def sweeps(tiny):
    """A function of rows: what a sweep of these prompts stores, over all tokens and of drawn ones."""
    model = tiny("gemma3")
    tokens, donors = (tiny_models.random_tokens(PROMPTS, 12, seed=seed) for seed in (1, 2))
    shape = (PROMPTS, 11, model.n_layers, model.n_heads)
    draw = torch.Generator().manual_seed(0)
    top, random = (torch.rand(shape, generator=draw) < share for share in (0.1, 0.05))
    top[2:4] = random[2:4] = False  # a prompt, and in one case a whole shard, without any

    @cache
    def of(rows):
        rows = list(rows)
        result = selfrepair.sweep(model, tokens[rows], donors=donors[rows])
        places = (top | random)[rows].nonzero(as_tuple=True)
        arrays = {name: v for name, v in result.arrays().items() if v.dim() == 4}
        drawn = {name: values[places] for name, values in arrays.items()}
        names = ("prompt", "position", "layer", "head")
        drawn |= {name: values.int() for name, values in zip(names, places, strict=True)}
        drawn["prompt"] += rows[0]
        drawn |= {"top": top[rows][places].byte(), "random": random[rows][places].byte()}
        return {"all": summed(result, top[rows], first_position=1), "sampled": drawn}

    return of


def written(folder, shards):
    """The index of shards, by their rows."""
    paths = []
    for number, (rows, tensors) in enumerate(shards):
        path = folder / "zero" / f"shard-{number}of{len(shards)}.safetensors"
        write_tensors(path, tensors, {"prompts": [rows[0], rows[-1] + 1], "wall_seconds": 1.0})
        paths.append(path)
    index = folder / "zero.json"
    write_json(index, gather(paths, relative_to=folder))
    return index


@pytest.mark.parametrize("mode", ["all", "sampled"])
def test_tables_do_not_depend_on_shards(tmp_path, sweeps, mode):
    found = []
    for number, shards in enumerate(SHARDS):
        index = written(tmp_path / str(number), [(rows, sweeps(rows)[mode]) for rows in shards])
        if mode == "all":
            layers = SummedLayers(index)
            swept = SummedHeads(layers, layers.per_prompt)
        else:
            swept = DrawnHeads(read_instances(index), prompts=PROMPTS)
        found.append(head_tables({"zero": swept}, model="m", seed=0, resamples=50))
    for tables in found[1:]:
        for table, expected in zip(tables, found[0], strict=True):
            assert set(table["selection"]) == {"top", "all"}
            assert table.columns == expected.columns
            for name in table.columns:
                values, due = table[name].to_list(), expected[name].to_list()
                # Sweeps of other prompts at once differ by rounding, a bin's neighbour in a few ratios.
                rel = 0.035 if mode == "all" and "_share_q" in name else 2e-3
                if table[name].dtype.is_float():
                    assert values == pytest.approx(due, rel=rel, abs=2e-3, nan_ok=True), name
                else:
                    assert values == due, name
