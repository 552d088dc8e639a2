"""Choose the heads that the experiments on single heads look at."""

from pathlib import Path

from adapter import run

from selfrepair.files.storage import read_tensors, write_json
from selfrepair.measure.selection import check_heads, choose_heads, watched_layers
from selfrepair.vocabulary import second_half


def main(snakemake):
    params = snakemake.params
    tensors, provenance = read_tensors(Path(snakemake.input.clean))
    effects = tensors["direct_effect"]
    n_layers, n_heads = effects.shape[2:]
    mlps, last = watched_layers(params.mlps, provenance["parallel_layers"])
    if params.named:
        heads = check_heads(
            params.named, n_layers, n_heads, name=f"models.{snakemake.wildcards.model}.chosen_heads"
        )
    else:
        first = second_half(n_layers)[0]
        heads = choose_heads(effects, params.wanted, first_layer=first, last_layer=last)
    end = n_layers - 1
    last_layer = choose_heads(effects, params.wanted, first_layer=end, last_layer=end)
    chosen = {"heads": heads, "last_layer_heads": last_layer, "mlps": sorted(set(mlps))}
    write_json(Path(snakemake.output[0]), chosen)


run(snakemake, main)
