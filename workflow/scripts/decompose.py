"""Aggregate the sweeps of a model into the table of heads and the table by depth."""

from pathlib import Path

from adapter import run

from selfrepair.decomposition import head_tables
from selfrepair.shards import ERRORS, read_sweep
from selfrepair.storage import atomic, environment, file_sha256, read_json, write_json


def main(snakemake):
    params, output = snakemake.params, snakemake.output
    indices = dict(zip(params.ablations, map(Path, snakemake.input.sweeps), strict=True))
    heads, depth = head_tables(
        {ablation: read_sweep(index) for ablation, index in indices.items()},
        model=params.title,
        seed=params.seed,
        resamples=params.resamples,
    )
    for path, table in ((output.heads, heads), (output.depth, depth)):
        with atomic(Path(path)) as temporary:
            table.write_parquet(temporary)
    sweeps = {ablation: read_json(index) for ablation, index in indices.items()}
    provenance = {
        "sha256": file_sha256(Path(output.heads)),
        **{name: max(sweep[name] for sweep in sweeps.values()) for name in ERRORS},
        "sweeps": sweeps,
        "config": snakemake.config,
        **environment(),
    }
    write_json(Path(output.provenance), provenance)


run(snakemake, main)
