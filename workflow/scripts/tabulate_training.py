"""How long a model was trained and how well it predicts, for the figure over training (E19)."""

from pathlib import Path

from common.adapter import run
from common.settings import title_of
from selfrepair.files.storage import read_json, write_table
from selfrepair.tables.training import training_table


def main(snakemake):
    table = training_table(
        read_json(Path(snakemake.input.clean)),
        model=title_of(snakemake),
        # Left out where the config does not state it.
        training_tokens=snakemake.params.settings.get("models.{model}.training_tokens"),
    )
    write_table(Path(snakemake.output.training), table)


run(snakemake, main)
