"""Sample the documents of a study."""

from pathlib import Path

from common.adapter import run
from common.settings import below, machine_of
from selfrepair.files.storage import write_table
from selfrepair.files.wheels import wheels_of
from selfrepair.text.documents import sample_documents


def main(snakemake):
    settings = snakemake.params.settings
    documents = sample_documents(
        settings["text.sources"],
        prompts=settings["text.prompts"],
        tokens_per_prompt=settings["text.tokens_per_prompt"],
        seed=settings["seed"],
        wheels=wheels_of(below(settings, "wheels")),
        cache=machine_of(snakemake).cache,
    )
    write_table(Path(snakemake.output[0]), documents)


run(snakemake, main)
