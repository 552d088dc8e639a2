"""Say in a small table what the study found."""

from pathlib import Path

import polars as pl

from common.adapter import run
from selfrepair.claims.study_models import titles_of_controls
from selfrepair.files.measured import check_errors
from selfrepair.files.shards import worst_errors
from selfrepair.files.storage import read_json, write_json, write_text
from selfrepair.tables.findings import findings, headline


def main(snakemake):
    depth = pl.concat([pl.read_parquet(path) for path in snakemake.input.depth])
    records = [read_json(Path(path)) for path in snakemake.input.provenance]
    for path, record in zip(snakemake.input.provenance, records, strict=True):
        check_errors(Path(path), record)
    errors = {k.removesuffix("_error"): v for k, v in worst_errors(records).items()}
    notes = {record["title"]: record["notes"] for record in records}
    controls = titles_of_controls(snakemake.params.models, snakemake.params.settings)
    write_text(Path(snakemake.output.findings), findings(depth, errors, notes, controls))
    write_json(Path(snakemake.output.metrics), headline(depth))


run(snakemake, main)
