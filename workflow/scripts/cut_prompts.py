"""Cut the documents of a study into the prompts of one model."""

from pathlib import Path

import polars as pl

from common.adapter import run
from common.model_location import location_of_model
from selfrepair.files.storage import write_table
from selfrepair.model.tokenizer import bos_token_of, load_tokenizer
from selfrepair.text.windows import cut_prompts


def main(snakemake):
    settings = snakemake.params.settings
    location, revision = location_of_model(snakemake)
    tokenizer = load_tokenizer(location, revision=revision)
    prompts = cut_prompts(
        pl.read_parquet(snakemake.input.documents),
        tokenizer,
        settings["text.sources"],
        prompts=settings["text.prompts"],
        tokens_per_prompt=settings["text.tokens_per_prompt"],
        seed=settings["seed"],
        bos_token=bos_token_of(tokenizer, settings["text.bos"]),
    )
    write_table(Path(snakemake.output[0]), prompts)


run(snakemake, main)
