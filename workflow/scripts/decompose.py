"""Aggregate the sweeps of a model into the table of heads and the table by depth."""

from pathlib import Path

from common.adapter import run
from common.settings import title_of
from selfrepair.files.agreement import agreement_note
from selfrepair.files.measured import check_errors, restore_measured
from selfrepair.files.provenance import environment
from selfrepair.files.shards import SummedLayers, read_instances, worst_errors
from selfrepair.files.storage import file_sha256, read_json, write_json, write_table
from selfrepair.measure.notes import model_notes
from selfrepair.model.parts import read_parts
from selfrepair.study.heads import swept_heads, swept_note
from selfrepair.tables.heads import head_tables
from selfrepair.tables.swept import DrawnHeads, SummedHeads
from selfrepair.vocabulary import SAMPLED


def main(snakemake):
    settings, output = snakemake.params.settings, snakemake.output
    indices = {Path(path).stem: Path(path) for path in snakemake.input.sweeps}
    sweeps = {ablation: read_json(index) for ablation, index in indices.items()}
    clean, agreement = (read_json(Path(snakemake.input[name])) for name in ("clean", "agreement"))
    check_errors(Path(snakemake.input.clean), clean)
    parts = read_parts(snakemake.input.parts)
    shape, asked = (len(parts.layers), parts.n_heads), settings["sweep.heads"]
    # The same for all: they are sweeps of one sample.
    bos_token = next(iter(sweeps.values()))["bos_token"]
    heads, depth = head_tables(
        {name: sweep_of(indices[name], sweeps[name], *shape) for name in indices},
        model=title_of(snakemake),
        seed=settings["seed"],
        resamples=settings["statistics.resamples"],
        ablated={*swept_heads(asked, *shape)},
    )
    for path, table in ((output.heads, heads), (output.depth, depth)):
        write_table(Path(path), table)
    provenance = {
        "sha256": file_sha256(Path(output.heads)),
        "title": title_of(snakemake),
        "bos_token": bos_token,
        "notes": [
            *model_notes(clean, weights=settings["models.{model}.weights"]),
            *swept_note(asked, *shape),
            agreement_note(agreement),
        ],
        **worst_errors(sweeps.values()),
        "sweeps": sweeps,
        "config": snakemake.config,
        **environment(),
    }
    write_json(Path(output.provenance), provenance)


def sweep_of(index, record, n_layers, n_heads):
    """What the tables read of a gathered sweep; record: the content of its index."""
    restore_measured(index)
    if record["tokens"] == SAMPLED:
        rows = read_instances(index)
        return DrawnHeads(rows, prompts=record["prompts"], n_layers=n_layers, n_heads=n_heads)
    layers = SummedLayers(index)
    return SummedHeads(layers, layers.per_prompt)


run(snakemake, main)
