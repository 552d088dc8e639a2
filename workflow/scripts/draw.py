"""Draw one figure in every format."""

from importlib import import_module
from pathlib import Path

import polars as pl

from common.adapter import run
from selfrepair.figures.saving import save_figure


def main(snakemake):
    figure = import_module(f"selfrepair.figures.{snakemake.params.module}")
    tables = [
        pl.concat([pl.read_parquet(path) for path in snakemake.input[name]])
        for name in snakemake.params.tables
    ]
    stem = Path(snakemake.output.png).with_suffix("")
    save_figure(figure.draw(*tables), figure.caption(*tables), stem)


run(snakemake, main)
