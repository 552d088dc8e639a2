"""Sample the documents of a study."""

from pathlib import Path

from common.adapter import run
from common.settings import machine_of, wheels_among
from selfrepair.files.storage import write_table
from selfrepair.text.corpus import sample_documents


def main(snakemake):
    settings = snakemake.params.settings
    documents = sample_documents(
        settings["text.sources"],
        prompts=settings["text.prompts"],
        tokens_per_prompt=settings["text.tokens_per_prompt"],
        seed=settings["seed"],
        wheels=wheels_among(settings),
        cache=machine_of(snakemake).cache,
    )
    write_table(Path(snakemake.output[0]), documents)


run(snakemake, main)
