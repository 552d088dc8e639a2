"""Compare a model's heads with the per-head tables that the paper's authors released."""

from pathlib import Path

import polars as pl

from common.adapter import run
from common.settings import machine_of
from selfrepair.files.storage import write_json, write_table
from selfrepair.published.compare import agreement_metrics, compare
from selfrepair.published.fetch import fetch_table, table_file
from selfrepair.published.unpickle import read_table


def main(snakemake):
    settings, output = snakemake.params.settings, snakemake.output
    released = settings["published.tables.{model}"]
    name, hashes = released["name"], released["sha256"]
    cache = machine_of(snakemake).cache / "published"
    tables = {}
    for quantity, sha256 in hashes.items():
        file = table_file(name, quantity)
        path = fetch_table(settings["published.location"], file, sha256=sha256, cache=cache)
        tables[quantity] = read_table(path, sha256=sha256)
    heads = pl.read_parquet(snakemake.input.heads)
    comparison, agreement = compare(
        heads, tables, seed=settings["seed"], resamples=settings["statistics.resamples"]
    )
    write_table(Path(output.table), comparison)
    write_table(Path(output.agreement), agreement)
    write_json(Path(output.metrics), agreement_metrics(agreement))


run(snakemake, main)
