"""Tables of iterative inference (E11)."""

from pathlib import Path

import polars as pl

from common.adapter import run
from common.settings import title_of
from selfrepair.files.arrays import read_arrays
from selfrepair.files.measured import restore_measured
from selfrepair.files.storage import read_json, write_table
from selfrepair.tables.instances import part_of
from selfrepair.tables.iterative import refeeding_table, self_repression_table


def main(snakemake):
    settings, output = snakemake.params.settings, snakemake.output
    index = Path(snakemake.input.index)
    restore_measured(index)
    record, shards = read_json(index), read_arrays(index)
    options = {
        "model": title_of(snakemake),
        "seed": settings["seed"],
        "resamples": settings["statistics.resamples"],
    }

    repression, slopes = self_repression_table(
        part_of(shards, "feed_back."),
        [tuple(head) for head in record["heads"]],
        record["scalings"],
        n_prompts=record["prompts"],
        **options,
    )
    refeeding, correlations = refeeding_table(part_of(shards, "refeed."), **options)
    write_table(Path(output.self_repression), repression)
    write_table(Path(output.refeeding), refeeding)
    write_table(Path(output.iterative_summaries), pl.concat([slopes, correlations]))


run(snakemake, main)
