"""Tables of the neurons that make up for chosen heads (E7 to E10)."""

from pathlib import Path

from adapter import run

from selfrepair.files.shards import read_shards
from selfrepair.files.storage import read_json, write_table
from selfrepair.tables.neurons import neuron_tables


def main(snakemake):
    params, index = snakemake.params, Path(snakemake.input.index)
    record = read_json(index)
    tables = neuron_tables(
        read_shards(index),
        [tuple(head) for head in record["heads"]["heads"]],
        record["heads"]["mlps"],
        n_neurons=record["n_neurons"],
        n_prompts=record["prompts"],
        model=params.title,
        seed=params.seed,
        resamples=params.resamples,
    )
    for name in ("ranks", "curve", "top_neurons", "counts", "summaries"):
        write_table(Path(snakemake.output[name]), getattr(tables, name))


run(snakemake, main)
