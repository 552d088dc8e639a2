"""Aggregate the sweeps of a model into the table of heads and the table by depth."""

from pathlib import Path

from common.adapter import run
from common.settings import title_of
from selfrepair.files.provenance import environment
from selfrepair.files.shards import SweptLayers, worst_errors
from selfrepair.files.storage import file_sha256, read_json, write_json, write_table
from selfrepair.measure.notes import model_notes
from selfrepair.tables.heads import head_tables
from selfrepair.text.prompts import first_position


def main(snakemake):
    settings, output = snakemake.params.settings, snakemake.output
    indices = {Path(path).stem: Path(path) for path in snakemake.input.sweeps}
    sweeps = {ablation: read_json(index) for ablation, index in indices.items()}
    # The same for all: they are sweeps of one sample.
    bos_token = next(iter(sweeps.values()))["bos_token"]
    heads, depth = head_tables(
        {ablation: SweptLayers(index) for ablation, index in indices.items()},
        model=title_of(snakemake),
        seed=settings["seed"],
        resamples=settings["statistics.resamples"],
        first_position=first_position(bos_token),
    )
    for path, table in ((output.heads, heads), (output.depth, depth)):
        write_table(Path(path), table)
    clean = read_json(Path(snakemake.input.clean))
    provenance = {
        "sha256": file_sha256(Path(output.heads)),
        "title": title_of(snakemake),
        "bos_token": bos_token,
        "notes": model_notes(clean, weights=settings["models.{model}.weights"]),
        **worst_errors(sweeps.values()),
        "sweeps": sweeps,
        "config": snakemake.config,
        **environment(),
    }
    write_json(Path(output.provenance), provenance)


run(snakemake, main)
