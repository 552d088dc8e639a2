"""Sample the documents of a study."""

from pathlib import Path

from adapter import run

from selfrepair.corpus import sample_documents
from selfrepair.storage import atomic
from selfrepair.study import wheels_of


def main(snakemake):
    text = snakemake.params.text
    documents = sample_documents(
        text["sources"],
        prompts=text["prompts"],
        tokens_per_prompt=text["tokens_per_prompt"],
        seed=snakemake.params.seed,
        wheels=wheels_of(snakemake.config),
        cache=Path(snakemake.config["cache"]),
    )
    with atomic(Path(snakemake.output[0])) as path:
        documents.write_parquet(path)


run(snakemake, main)
