"""Draw one figure, in the formats of the study."""

from importlib import import_module
from pathlib import Path

import polars as pl

from common.adapter import run
from selfrepair.figures.drawing import drawn
from selfrepair.figures.saving import save_figure
from selfrepair.files.storage import read_json


def main(snakemake):
    parts = [
        [pl.read_parquet(path) for path in snakemake.input[name]]
        for name in snakemake.params.tables
    ]
    settings = snakemake.params.settings
    chart, caption = drawn(
        import_module(f"selfrepair.figures.{snakemake.params.module}"),
        parts,
        notes=[read_json(Path(path))["notes"] for path in snakemake.input.notes],
        weights=[note for key, note in settings.items() if key != "figures.formats"],
    )
    stem, vega = Path(snakemake.output.png).with_suffix(""), Path(snakemake.input.vega)
    save_figure(chart, caption, stem, vega=vega, formats=settings["figures.formats"])


run(snakemake, main)
