"""Judge each claim of the paper for every model of the study."""

from pathlib import Path

import polars as pl

from common.adapter import run
from selfrepair.claims.judge import judge, metrics, post_norm_notes
from selfrepair.claims.over_models import judge_over_models
from selfrepair.claims.page import markdown, page
from selfrepair.claims.study_models import study_models, titles_of_controls
from selfrepair.files.storage import read_json, write_json, write_table, write_text


def main(snakemake):
    tables = [
        pl.concat([pl.read_parquet(path) for path in paths])
        for paths in (snakemake.input.depth, snakemake.input.summaries)
    ]
    about = snakemake.params.models, snakemake.params.settings
    models, controls = study_models(*about), titles_of_controls(*about)
    claims = judge(*tables, controls)
    over_models = judge_over_models(claims, tables[0], models)
    records = [read_json(Path(path)) for path in snakemake.input.provenance]
    terms = post_norm_notes(tables[0])
    options = {
        "over_models": over_models,
        "study": snakemake.params.settings["study"],
        "paths": snakemake.params.figures,
        "notes": {r["title"]: [*r["notes"], *terms.get(r["title"], [])] for r in records},
    }
    output = {name: Path(path) for name, path in snakemake.output.items()}
    write_table(output["table"], claims)
    write_table(output["over_models"], over_models)
    several = sum(model.control_of is None for model in models) > 1
    write_json(output["metrics"], metrics(claims, over_models if several else None))
    write_text(output["markdown"], markdown(claims, **options))
    write_text(output["page"], page(claims, **options))


run(snakemake, main)
