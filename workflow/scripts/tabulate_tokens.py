"""Tables of chosen heads token by token (E3) and of the final norm's scale (E4)."""

from pathlib import Path

import polars as pl

from common.adapter import run
from common.settings import title_of
from selfrepair.files.arrays import read_arrays
from selfrepair.files.measured import restore_measured
from selfrepair.files.storage import read_json, write_table
from selfrepair.tables.instances import part_of
from selfrepair.tables.tokens import scale_table, token_table


def main(snakemake):
    settings, output = snakemake.params.settings, snakemake.output
    index = Path(snakemake.input.index)
    restore_measured(index)
    shards, record = read_arrays(index), read_json(index)
    chosen = record["heads"]
    heads, last = ([tuple(h) for h in chosen[k]] for k in ("heads", "last_layer_heads"))
    options = {
        "n_prompts": record["prompts"],
        "model": title_of(snakemake),
        "seed": settings["seed"],
        "resamples": settings["statistics.resamples"],
    }
    tokens, shares = token_table(part_of(shards, "tokens."), heads, **options)
    scales, above = scale_table(part_of(shards, "last."), last, **options)
    write_table(Path(output.tokens), tokens)
    write_table(Path(output.scale_ratios), scales)
    write_table(Path(output.token_summaries), pl.concat([shares, above]))


run(snakemake, main)
