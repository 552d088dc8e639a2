"""Find each head's top tokens in the whole sample, and what else the shards of the clean pass add up to."""

from pathlib import Path

from common.adapter import run
from selfrepair.files.provenance import Stopwatch
from selfrepair.files.shards import gather
from selfrepair.files.storage import read_json, sidecar, write_tensors
from selfrepair.measure.ranking import ShardFile, rank
from selfrepair.text.prompts import first_position


def main(snakemake):
    watch, output = Stopwatch(), Path(snakemake.output.tensors)
    paths = [Path(path) for path in snakemake.input.shards]
    gathered = gather(paths, relative_to=output.parent)
    first = read_json(sidecar(paths[0]))
    shards = [ShardFile(path) for path in paths]
    ranking = rank(shards, first_position=first_position(first["bos_token"]))
    of_first = {key: value for key, value in first.items() if key != "sha256"}
    provenance = (
        of_first
        | gathered
        | {
            "prompts": [0, gathered["prompts"]],
            "mean_surprisal_nats": float(ranking.surprisal.mean()),
            "wall_seconds": round(gathered["wall_seconds"] + watch.seconds(), 3),
        }
    )
    write_tensors(output, ranking.arrays(), provenance)


run(snakemake, main)
