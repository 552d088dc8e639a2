"""Aggregate the sweeps of a model into the table of heads and the table by depth."""

from pathlib import Path

from common.adapter import run
from common.settings import title_of
from selfrepair.files.provenance import environment
from selfrepair.files.shards import SweptLayers, worst_errors
from selfrepair.files.storage import file_sha256, read_json, write_json, write_table
from selfrepair.measure.notes import neuron_notes
from selfrepair.tables.heads import head_tables


def main(snakemake):
    settings, output = snakemake.params.settings, snakemake.output
    indices = {Path(path).stem: Path(path) for path in snakemake.input.sweeps}
    heads, depth = head_tables(
        {ablation: SweptLayers(index) for ablation, index in indices.items()},
        model=title_of(snakemake),
        seed=settings["seed"],
        resamples=settings["statistics.resamples"],
    )
    for path, table in ((output.heads, heads), (output.depth, depth)):
        write_table(Path(path), table)
    sweeps = {ablation: read_json(index) for ablation, index in indices.items()}
    clean = read_json(Path(snakemake.input.clean))
    provenance = {
        "sha256": file_sha256(Path(output.heads)),
        "title": title_of(snakemake),
        "notes": [*clean["notes"], *neuron_notes(clean["neuron_layers"])],
        **worst_errors(sweeps.values()),
        "sweeps": sweeps,
        "config": snakemake.config,
        **environment(),
    }
    write_json(Path(output.provenance), provenance)


run(snakemake, main)
