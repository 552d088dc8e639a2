"""Draw one figure, in the formats of the study."""

from importlib import import_module
from pathlib import Path

import polars as pl

from common.adapter import run
from selfrepair.figures.notes import noted
from selfrepair.figures.saving import save_figure
from selfrepair.files.storage import read_json


def main(snakemake):
    figure = import_module(f"selfrepair.figures.{snakemake.params.module}")
    parts = [
        [pl.read_parquet(path) for path in snakemake.input[name]]
        for name in snakemake.params.tables
    ]
    tables = [pl.concat(part) for part in parts]
    # A table that was left empty, of one model, does not name it, and need not.
    titles = ["".join(table["model"].head(1)) for table in parts[0]]
    records = [read_json(Path(path)) for path in snakemake.input.notes]
    notes = {title: record["notes"] for title, record in zip(titles, records, strict=True)}
    chart, caption = noted(figure.draw(*tables), figure.caption(*tables), notes)
    settings = snakemake.params.settings
    formats = settings["figures.formats"]
    of_models = (note for key, note in settings.items() if key != "figures.formats")
    weights = zip(titles, of_models, strict=True)
    caption += "".join(
        f" Weights of {title or 'this model'}: {note}." for title, note in weights if note
    )
    stem, vega = Path(snakemake.output.png).with_suffix(""), Path(snakemake.input.vega)
    save_figure(chart, caption, stem, vega=vega, formats=formats)


run(snakemake, main)
