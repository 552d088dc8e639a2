"""Tables of chosen heads under every ablation (E17)."""

from pathlib import Path

from common.adapter import run
from common.settings import title_of
from selfrepair.files.arrays import read_arrays
from selfrepair.files.measured import restore_measured
from selfrepair.files.storage import read_json, write_table
from selfrepair.tables.compared_ablations import compared_tables


def main(snakemake):
    settings, output = snakemake.params.settings, snakemake.output
    index = Path(snakemake.input.index)
    restore_measured(index)
    record = read_json(index)
    heads, summaries = compared_tables(
        read_arrays(index),
        [tuple(head) for head in record["heads"]["heads"]],
        n_prompts=record["prompts"],
        model=title_of(snakemake),
        seed=settings["seed"],
        resamples=settings["statistics.resamples"],
    )
    write_table(Path(output.compared_ablations), heads)
    write_table(Path(output.compared_summaries), summaries)


run(snakemake, main)
