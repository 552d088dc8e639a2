"""Choose the pairs of heads that are ablated together, by the map of who repairs."""

from pathlib import Path

from common.adapter import run
from selfrepair.files.measured import restore_measured
from selfrepair.files.storage import write_json
from selfrepair.files.sums import summed_shards
from selfrepair.tables.pairs import choose_pairs


def main(snakemake):
    settings, indices = snakemake.params.settings, [Path(p) for p in snakemake.input.sweeps]
    for index in indices:
        restore_measured(index)
    maps = {index.stem: summed_shards(index, "map.") for index in indices}
    pairs = choose_pairs(maps, count=settings["experiments.pairs"], seed=settings["seed"])
    write_json(Path(snakemake.output[0]), {"pairs": pairs})


run(snakemake, main)
