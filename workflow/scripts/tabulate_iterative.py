"""Tables of iterative inference (E11)."""

from pathlib import Path

import polars as pl
from adapter import run

from selfrepair.files.shards import read_shards
from selfrepair.files.storage import read_json, write_table
from selfrepair.tables.iterative import refeeding_table, self_repression_table


def main(snakemake):
    params, output, index = snakemake.params, snakemake.output, Path(snakemake.input.index)
    record, shards = read_json(index), read_shards(index)
    options = {"model": params.title, "seed": params.seed, "resamples": params.resamples}

    def part(prefix):
        return [
            {k.removeprefix(prefix): v for k, v in shard.items() if k.startswith(prefix)}
            for shard in shards
        ]

    repression, slopes = self_repression_table(
        part("feed_back."),
        [tuple(head) for head in record["heads"]],
        record["scalings"],
        n_prompts=record["prompts"],
        **options,
    )
    refeeding, correlations = refeeding_table(part("refeed."), **options)
    write_table(Path(output.self_repression), repression)
    write_table(Path(output.refeeding), refeeding)
    write_table(Path(output.summaries), pl.concat([slopes, correlations]))


run(snakemake, main)
