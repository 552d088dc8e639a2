"""Ask TransformerLens once where the parts of a model are, for all jobs that run it."""

from pathlib import Path

from common.adapter import run
from common.model_location import location_of_model
from selfrepair.files.storage import write_text
from selfrepair.model.finding import find_parts


def main(snakemake):
    location, revision = location_of_model(snakemake)
    parts = find_parts(location, revision=revision)
    write_text(Path(snakemake.output[0]), parts.to_json())


run(snakemake, main)
