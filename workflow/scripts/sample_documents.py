"""Sample the documents of a study."""

from pathlib import Path

from adapter import run

from selfrepair.files.storage import write_table
from selfrepair.files.wheels import wheels_of
from selfrepair.text.documents import sample_documents


def main(snakemake):
    text = snakemake.params.text
    documents = sample_documents(
        text["sources"],
        prompts=text["prompts"],
        tokens_per_prompt=text["tokens_per_prompt"],
        seed=snakemake.params.seed,
        wheels=wheels_of(snakemake.config["wheels"]),
        cache=Path(snakemake.config["cache"]),
    )
    write_table(Path(snakemake.output[0]), documents)


run(snakemake, main)
