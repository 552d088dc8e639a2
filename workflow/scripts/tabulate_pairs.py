"""Tables of heads ablated together (E16)."""

from pathlib import Path

from common.adapter import run
from common.settings import title_of
from selfrepair.files.arrays import read_arrays
from selfrepair.files.measured import restore_measured
from selfrepair.files.storage import read_json, write_table
from selfrepair.tables.co_ablation import co_ablation_tables


def main(snakemake):
    settings, output = snakemake.params.settings, snakemake.output
    index = Path(snakemake.input.index)
    restore_measured(index)
    record = read_json(index)
    pairs, summaries = co_ablation_tables(
        read_arrays(index),
        record["heads"]["pairs"],
        n_prompts=record["prompts"],
        model=title_of(snakemake),
        seed=settings["seed"],
        resamples=settings["statistics.resamples"],
    )
    write_table(Path(output.co_ablation), pairs)
    write_table(Path(output.co_ablation_summaries), summaries)


run(snakemake, main)
