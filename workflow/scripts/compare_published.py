"""Compare a model's heads with the per-head tables that the paper's authors released."""

from pathlib import Path

import polars as pl
from adapter import run

from selfrepair.files.storage import write_json, write_table
from selfrepair.published.compare import agreement_metrics, compare
from selfrepair.published.fetch import fetch_table, table_file
from selfrepair.published.unpickle import read_table


def main(snakemake):
    params, output = snakemake.params, snakemake.output
    name, hashes = params.released["name"], params.released["sha256"]
    cache = Path(snakemake.config["cache"]) / "published"
    tables = {}
    for quantity, sha256 in hashes.items():
        file = table_file(name, quantity)
        path = fetch_table(params.location, file, sha256=sha256, cache=cache)
        tables[quantity] = read_table(path, sha256=sha256)
    heads = pl.read_parquet(snakemake.input.heads)
    comparison, agreement = compare(heads, tables, seed=params.seed, resamples=params.resamples)
    write_table(Path(output.table), comparison)
    write_table(Path(output.agreement), agreement)
    write_json(Path(output.metrics), agreement_metrics(agreement))


run(snakemake, main)
