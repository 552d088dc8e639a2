"""Write the script that the pages of all figures share."""

from pathlib import Path

from adapter import run

from selfrepair.plotting import vega_script
from selfrepair.storage import write_text


def main(snakemake):
    write_text(Path(snakemake.output[0]), vega_script())


run(snakemake, main)
