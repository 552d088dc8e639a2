"""Judge each claim of the paper for every model of the study."""

from pathlib import Path

import polars as pl

from common.adapter import run
from selfrepair.claims.judge import judge, metrics, post_norm_notes
from selfrepair.claims.page import markdown, page
from selfrepair.files.storage import read_json, write_json, write_table, write_text


def main(snakemake):
    tables = [
        pl.concat([pl.read_parquet(path) for path in paths])
        for paths in (snakemake.input.depth, snakemake.input.summaries)
    ]
    claims = judge(*tables)
    records = [read_json(Path(path)) for path in snakemake.input.provenance]
    terms = post_norm_notes(tables[0])
    options = {
        "study": snakemake.params.settings["study"],
        "paths": snakemake.params.figures,
        "notes": {r["title"]: [*r["notes"], *terms.get(r["title"], [])] for r in records},
    }
    output = {name: Path(path) for name, path in snakemake.output.items()}
    write_table(output["table"], claims)
    write_json(output["metrics"], metrics(claims))
    write_text(output["markdown"], markdown(claims, **options))
    write_text(output["page"], page(claims, **options))


run(snakemake, main)
