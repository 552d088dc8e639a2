"""Tables of the neurons that make up for chosen heads (E7 to E10)."""

from pathlib import Path

from common.adapter import run
from common.settings import title_of
from selfrepair.files.measured import restore_measured
from selfrepair.files.shards import read_shards
from selfrepair.files.storage import read_json, write_table
from selfrepair.tables.neurons import neuron_tables, no_neuron_tables


def main(snakemake):
    settings, index = snakemake.params.settings, Path(snakemake.input.index)
    restore_measured(index)
    record = read_json(index)
    if "not_measured" in record:
        tables = no_neuron_tables()
    else:
        tables = neuron_tables(
            read_shards(index),
            [tuple(head) for head in record["heads"]["heads"]],
            record["heads"]["mlps"],
            n_neurons=record["n_neurons"],
            n_prompts=record["prompts"],
            model=title_of(snakemake),
            seed=settings["seed"],
            resamples=settings["statistics.resamples"],
        )
    output = snakemake.output
    write_table(Path(output.neuron_ranks), tables.ranks)
    write_table(Path(output.neuron_curve), tables.curve)
    write_table(Path(output.top_neurons), tables.top_neurons)
    write_table(Path(output.neuron_counts), tables.counts)
    write_table(Path(output.neuron_summaries), tables.summaries)


run(snakemake, main)
