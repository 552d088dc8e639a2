"""Tables of who repairs, from the repair maps of the sweeps that have one (E13, E14)."""

from pathlib import Path

from common.adapter import run
from common.settings import title_of
from selfrepair.files.measured import restore_measured
from selfrepair.files.storage import write_table
from selfrepair.files.sums import summed_shards
from selfrepair.tables.repair_map import backup_heads_table, repair_layers_table, repair_map_table


def main(snakemake):
    # No sweep with a map: empty tables, and figures that say so.
    indices = [Path(path) for path in snakemake.input.sweeps]
    for index in indices:
        restore_measured(index)
    maps = {index.stem: summed_shards(index, "map.") for index in indices}
    model, output = title_of(snakemake), snakemake.output
    write_table(Path(output.repair_map), repair_map_table(maps, model=model))
    write_table(Path(output.backup_heads), backup_heads_table(maps, model=model))
    write_table(Path(output.repair_layers), repair_layers_table(maps, model=model))


run(snakemake, main)
