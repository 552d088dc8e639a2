"""Draw one figure in every format."""

from pathlib import Path

import polars as pl
from adapter import run

from selfrepair.figures import FIGURES, caption, save_figure


def main(snakemake):
    figure = snakemake.params.figure
    heads = pl.concat([pl.read_parquet(path) for path in snakemake.input.heads])
    chart = FIGURES[figure](heads)
    save_figure(chart, caption(figure, heads), Path(snakemake.output.png).with_suffix(""))


run(snakemake, main)
