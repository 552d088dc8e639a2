"""Check the shards of a sweep and index them."""

from pathlib import Path

from common.adapter import run
from selfrepair.files.shards import gather
from selfrepair.files.storage import write_json


def main(snakemake):
    index = Path(snakemake.output[0])
    shards = [Path(path) for path in snakemake.input.shards]
    write_json(index, gather(shards, relative_to=index.parent))


run(snakemake, main)
