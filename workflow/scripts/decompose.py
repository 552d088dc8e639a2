"""Aggregate the sweeps of a model into the table of heads and the table by depth."""

from pathlib import Path

from adapter import run

from selfrepair.files.provenance import environment
from selfrepair.files.shards import SweptLayers, worst_errors
from selfrepair.files.storage import (
    file_sha256,
    read_json,
    write_json,
    write_table,
)
from selfrepair.tables.heads import head_tables


def main(snakemake):
    params, output = snakemake.params, snakemake.output
    indices = dict(zip(params.ablations, map(Path, snakemake.input.sweeps), strict=True))
    heads, depth = head_tables(
        {ablation: SweptLayers(index) for ablation, index in indices.items()},
        model=params.title,
        seed=params.seed,
        resamples=params.resamples,
    )
    for path, table in ((output.heads, heads), (output.depth, depth)):
        write_table(Path(path), table)
    sweeps = {ablation: read_json(index) for ablation, index in indices.items()}
    provenance = {
        "sha256": file_sha256(Path(output.heads)),
        **worst_errors(sweeps.values()),
        "sweeps": sweeps,
        "config": snakemake.config,
        **environment(),
    }
    write_json(Path(output.provenance), provenance)


run(snakemake, main)
