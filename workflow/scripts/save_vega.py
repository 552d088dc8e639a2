"""Write the one copy of Vega that draws the pages of a study's figures."""

from pathlib import Path

from common.adapter import run
from selfrepair.figures.vega import save_vega


def main(snakemake):
    save_vega(Path(snakemake.output[0]))


run(snakemake, main)
