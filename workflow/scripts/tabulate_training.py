"""How long a model was trained and how well it predicts, for the figure over training (E19)."""

from pathlib import Path

from common.adapter import run
from common.settings import title_of
from selfrepair.files.measured import check_errors
from selfrepair.files.storage import read_json, write_table
from selfrepair.tables.training import training_table


def main(snakemake):
    clean = Path(snakemake.input.clean)
    record = read_json(clean)
    check_errors(clean, record)
    table = training_table(
        record,
        model=title_of(snakemake),
        # Left out where the config does not state it.
        training_tokens=snakemake.params.settings.get("models.{model}.training_tokens"),
    )
    write_table(Path(snakemake.output.training), table)


run(snakemake, main)
