"""Cut the documents of a study into the prompts of one model."""

from pathlib import Path

import polars as pl
from adapter import run

from selfrepair.files.storage import write_table
from selfrepair.files.wheels import wheels_of
from selfrepair.model.tokenizer import load_tokenizer
from selfrepair.model.weights import model_location
from selfrepair.text.windows import cut_prompts


def main(snakemake):
    config, text, model = snakemake.config, snakemake.params.text, snakemake.params.model
    location = model_location(model, wheels_of(config["wheels"]), Path(config["cache"]))
    prompts = cut_prompts(
        pl.read_parquet(snakemake.input.documents),
        load_tokenizer(location, revision=model.get("revision")),
        text["sources"],
        prompts=text["prompts"],
        tokens_per_prompt=text["tokens_per_prompt"],
        seed=snakemake.params.seed,
    )
    write_table(Path(snakemake.output[0]), prompts)


run(snakemake, main)
