"""Draw one figure, in the formats of the study; then others that are due (`common.ahead`)."""

from importlib import import_module
from pathlib import Path

from common.adapter import run
from common.ahead import drawing_of, make
from selfrepair.files.storage import read_json


def main(snakemake):
    make(drawing_of(snakemake), draw)


def draw(drawing, root):
    """Draw a figure into a folder, under the paths that it has in the checkout."""
    # Slow to start: not where the figure has been drawn by another job.
    import polars as pl

    from selfrepair.figures.drawing import drawn
    from selfrepair.figures.saving import save_figure

    settings = drawing.settings
    chart, caption = drawn(
        import_module(f"selfrepair.figures.{drawing.module}"),
        [[pl.read_parquet(path) for path in paths] for paths in drawing.tables.values()],
        notes=[read_json(Path(path))["notes"] for path in drawing.notes],
        weights=[note for key, note in settings.items() if key != "figures.formats"],
    )
    formats = settings["figures.formats"]
    save_figure(chart, caption, root / drawing.stem, vega=root / drawing.vega, formats=formats)


run(snakemake, main)
