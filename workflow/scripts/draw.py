"""Draw one figure in every format."""

from pathlib import Path

import polars as pl
from adapter import run

from selfrepair.figures.gallery import FIGURES
from selfrepair.figures.plotting import save_figure


def main(snakemake):
    tables = [
        pl.concat([pl.read_parquet(path) for path in snakemake.input[name]])
        for name in snakemake.params.tables
    ]
    figure = FIGURES[snakemake.params.figure]
    stem = Path(snakemake.output.png).with_suffix("")
    save_figure(figure.draw(*tables), figure.caption(*tables), stem)


run(snakemake, main)
