"""The script that tabulates who repairs: from the shards of the sweeps that have a map, or from none."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import torch

from repair_tables import repair_sums
from selfrepair.files.shards import gather
from selfrepair.files.storage import write_json, write_tensors
from selfrepair.tables.repair_map import (
    backup_heads_table,
    repair_layers_table,
    repair_map_table,
)

SCRIPTS = Path(__file__).parents[2] / "workflow/scripts"
TABLES = {
    "repair_map": repair_map_table,
    "backup_heads": backup_heads_table,
    "repair_layers": repair_layers_table,
}


def run_script(folder, sweeps):
    """Run the script as Snakemake does; the paths of its tables."""
    sys.path.insert(0, str(SCRIPTS))
    output = {name: folder / f"{name}.parquet" for name in TABLES}
    snakemake = SimpleNamespace(
        input=SimpleNamespace(sweeps=sweeps),
        output=SimpleNamespace(**output),
        log=[str(folder / "map_repair.log")],
        wildcards=SimpleNamespace(model="toy"),
        params=SimpleNamespace(settings={"models.{model}.title": "Toy"}),
    )
    runpy.run_path(str(SCRIPTS / "map_repair.py"), init_globals={"snakemake": snakemake})
    return output


@pytest.mark.parametrize("ablations", [(), ("resample", "mean")])
def test_tables_are_those_of_the_sweeps_with_a_map(tmp_path, ablations):
    maps, sweeps = {}, []
    for seed, ablation in enumerate(ablations):
        maps[ablation] = repair_sums(seed=seed)
        shard = tmp_path / ablation / "shard-0of1.safetensors"
        tensors = {f"map.{name}": torch.tensor(sums) for name, sums in maps[ablation].items()}
        write_tensors(shard, tensors, {"prompts": [0, 22], "wall_seconds": 1.0})
        sweeps.append(tmp_path / f"{ablation}.json")
        write_json(sweeps[-1], gather([shard], relative_to=tmp_path))
    for name, path in run_script(tmp_path, [str(index) for index in sweeps]).items():
        table = pl.read_parquet(path)
        assert table.equals(TABLES[name](maps, model="Toy"))
        assert table["ablation"].unique(maintain_order=True).to_list() == [*ablations]


def test_nan_in_a_map_makes_no_table(tmp_path):
    """In a shard that its sidecar and the index vouch for."""
    maps = repair_sums(seed=0)
    maps["sums"][1, 0, 2] = float("nan")
    shard = tmp_path / "resample/shard-0of1.safetensors"
    tensors = {f"map.{name}": torch.tensor(sums) for name, sums in maps.items()}
    write_tensors(shard, tensors, {"prompts": [0, 22], "wall_seconds": 1.0})
    write_json(tmp_path / "resample.json", gather([shard], relative_to=tmp_path))
    with pytest.raises(SystemExit):
        run_script(tmp_path, [str(tmp_path / "resample.json")])
    line = (tmp_path / "map_repair.log").read_text()
    assert line.startswith(f"error: {shard}: map.sums is nan at [1, 0, 2]; ")
    assert not [*tmp_path.glob("*.parquet")]
