"""Write the explorer page of a study: its results in one file that needs no network."""

from pathlib import Path

import polars as pl

from common.adapter import run
from selfrepair.files.archives import restore_shards
from selfrepair.files.storage import read_json, write_text
from selfrepair.page.data import ModelResults, page_data
from selfrepair.page.html import page_html


def main(snakemake):
    read, params = snakemake.input, snakemake.params
    models = [model_results(snakemake, at, key) for at, key in enumerate(params.models)]
    data = page_data(
        params.settings["study"],
        models,
        claims=pl.read_parquet(read.claims),
        over_models=pl.read_parquet(read.over_models),
        documents=pl.read_parquet(read.documents),
        figures=params.figures,
        formats=params.settings["figures.formats"],
    )
    bundle, vega = (Path(path).read_text(encoding="utf-8") for path in (read.bundle, read.vega))
    write_text(Path(snakemake.output[0]), page_html(bundle, data, vega))


def model_results(snakemake, at, key):
    """What the page reads of one model; at: its place among the models, key: its name in the config."""
    read, settings = snakemake.input, snakemake.params.settings
    sweeps = {}
    for ablation in snakemake.params.ablations:
        index = Path(read[f"sweep_{ablation}"][at])
        restore_shards(index)
        sweeps[ablation] = index
    return ModelResults(
        key,
        {name: pl.read_parquet(read[name][at]) for name in snakemake.params.tables},
        read_json(Path(read.heads_record[at])),
        read_json(Path(read.clean_record[at])),
        sweeps,
        weights=settings[f"models.{key}.weights"],
        control_of=settings[f"models.{key}.control_of"],
    )


run(snakemake, main)
