"""Tables of chosen heads token by token (E3) and of the final norm's scale (E4)."""

from pathlib import Path

import polars as pl

from common.adapter import run
from common.settings import title_of
from selfrepair.files.shards import read_sweep
from selfrepair.files.storage import read_json, write_table
from selfrepair.tables.tokens import scale_table, token_table
from selfrepair.text.prompts import first_position


def main(snakemake):
    settings, output = snakemake.params.settings, snakemake.output
    index = Path(snakemake.input.index)
    arrays, record = read_sweep(index), read_json(index)
    chosen = record["heads"]
    heads, last = ([tuple(h) for h in chosen[k]] for k in ("heads", "last_layer_heads"))
    options = {
        "model": title_of(snakemake),
        "seed": settings["seed"],
        "resamples": settings["statistics.resamples"],
        "first_position": first_position(record["bos_token"]),
    }
    split = [name.split(".") for name in arrays]
    effects = {name: arrays[f"tokens.{name}"] for part, name in split if part == "tokens"}
    direct_effect = arrays["last.direct_effect"]
    ratios = {
        name: arrays[f"last.{name}"]
        for part, name in split
        if part == "last" and name != "direct_effect"
    }
    tokens, shares = token_table(effects, heads, **options)
    scales, above = scale_table(ratios, direct_effect, last, **options)
    write_table(Path(output.tokens), tokens)
    write_table(Path(output.scale_ratios), scales)
    write_table(Path(output.token_summaries), pl.concat([shares, above]))


run(snakemake, main)
