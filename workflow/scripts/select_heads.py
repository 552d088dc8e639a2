"""Of the tokens that were drawn, keep those of the heads that are to be swept."""

from pathlib import Path

import polars as pl

from common.adapter import run
from selfrepair.files.storage import write_table
from selfrepair.model.parts import read_parts
from selfrepair.study.heads import swept_heads


def main(snakemake):
    parts = read_parts(snakemake.input.parts)
    heads = swept_heads(snakemake.params.settings["sweep.heads"], len(parts.layers), parts.n_heads)
    drawn = pl.read_parquet(snakemake.input.drawn)
    wanted = pl.DataFrame(heads, schema=drawn.select("layer", "head").schema, orient="row")
    kept = drawn.join(wanted, on=["layer", "head"], how="semi", maintain_order="left")
    write_table(Path(snakemake.output[0]), kept)


run(snakemake, main)
