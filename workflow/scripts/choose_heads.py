"""Choose the heads that the experiments on single heads look at."""

from pathlib import Path

from common.adapter import run
from selfrepair.files.storage import read_tensors, write_json
from selfrepair.measure.selection import check_heads, choose_heads, watched_layers
from selfrepair.vocabulary import second_half


def main(snakemake):
    settings = snakemake.params.settings
    named, wanted = settings["models.{model}.chosen_heads"], settings["experiments.heads_per_model"]
    tensors, provenance = read_tensors(Path(snakemake.input.clean), ["mean_direct_effect"])
    means = tensors["mean_direct_effect"]
    n_layers, n_heads = means.shape
    mlps, last = watched_layers(settings["experiments.mlps"], provenance["parallel_layers"])
    if named:
        heads = check_heads(
            named, n_layers, n_heads, name=f"models.{snakemake.wildcards.model}.chosen_heads"
        )
    else:
        first = second_half(n_layers)[0]
        heads = choose_heads(means, wanted, first_layer=first, last_layer=last)
    end = n_layers - 1
    last_layer = choose_heads(means, wanted, first_layer=end, last_layer=end)
    chosen = {"heads": heads, "last_layer_heads": last_layer, "mlps": sorted(set(mlps))}
    write_json(Path(snakemake.output[0]), chosen)


run(snakemake, main)
