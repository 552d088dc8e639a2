"""Tables of the narrow task, beside the study's text (E18)."""

from pathlib import Path

import polars as pl

from common.adapter import run
from common.settings import title_of
from selfrepair.files.arrays import read_arrays
from selfrepair.files.measured import restore_measured
from selfrepair.files.storage import write_table
from selfrepair.tables.narrow import narrow_tables


def main(snakemake):
    settings, output = snakemake.params.settings, snakemake.output
    index = Path(snakemake.input.index)
    restore_measured(index)
    heads, summaries = narrow_tables(
        read_arrays(index),
        heads=pl.read_parquet(snakemake.input.heads),
        repair_map=pl.read_parquet(snakemake.input.repair_map),
        model=title_of(snakemake),
        seed=settings["seed"],
        resamples=settings["statistics.resamples"],
    )
    write_table(Path(output.narrow_heads), heads)
    write_table(Path(output.narrow_summaries), summaries)


run(snakemake, main)
