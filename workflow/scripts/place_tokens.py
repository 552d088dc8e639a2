"""Find where each token of the prompts stands in its text."""

from pathlib import Path

import polars as pl

from common.adapter import run
from common.model_location import location_of_model
from selfrepair.files.storage import write_table
from selfrepair.model.tokenizer import load_tokenizer
from selfrepair.text.spans import token_spans


def main(snakemake):
    location, revision = location_of_model(snakemake)
    tokenizer = load_tokenizer(location, revision=revision)
    prompts, documents = (
        pl.read_parquet(path) for path in (snakemake.input.prompts, snakemake.input.documents)
    )
    write_table(Path(snakemake.output[0]), token_spans(prompts, documents, tokenizer))


run(snakemake, main)
