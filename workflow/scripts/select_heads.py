"""Of the tokens that were drawn, keep those of the heads that are to be swept."""

from pathlib import Path

import polars as pl

from common.adapter import run
from selfrepair.errors import InputError
from selfrepair.files.storage import write_table
from selfrepair.model.parts import read_parts
from selfrepair.study.heads import swept_heads


def main(snakemake):
    settings, parts = snakemake.params.settings, read_parts(snakemake.input.parts)
    heads = swept_heads(settings["sweep.heads"], len(parts.layers), parts.n_heads)
    drawn = pl.read_parquet(snakemake.input.drawn)
    wanted = pl.DataFrame(heads, schema=drawn.select("layer", "head").schema, orient="row")
    kept = drawn.join(wanted, on=["layer", "head"], how="semi", maintain_order="left")
    first = settings["sweep.prompts_per_shard"]
    if settings["sweep.checked_heads"] and not (kept["prompt"] < first).any():
        raise InputError(
            f"sweep.heads: no token of these heads was drawn in the first {first} prompts"
            " (sweep.prompts_per_shard), of which some are compared with the plain model; take larger shards,"
            " more tokens, or sweep.checked_heads: 0"
        )
    write_table(Path(snakemake.output[0]), kept)


run(snakemake, main)
