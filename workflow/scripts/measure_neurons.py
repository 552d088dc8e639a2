"""Measure the neurons that make up for chosen heads, on one shard of the prompts."""

from pathlib import Path

import torch
from adapter import run
from rule_model import load_rule_model
from rule_run import progress_bar, provenance_of

from selfrepair.files.provenance import Stopwatch
from selfrepair.files.storage import (
    read_json,
    read_tensors,
    write_tensors,
)
from selfrepair.measure.neurons import neuron_repair
from selfrepair.measure.selection import top_mask
from selfrepair.text.prompts import read_prompts


def main(snakemake):
    watch, sizes = Stopwatch(), snakemake.config["memory"]
    rows = list(snakemake.params.prompts)
    tokens, donors = read_prompts(Path(snakemake.input.prompts))
    clean, _ = read_tensors(Path(snakemake.input.clean), ["direct_effect"])
    chosen = read_json(Path(snakemake.input.heads))
    heads = [tuple(head) for head in chosen["heads"]]
    effects = clean["direct_effect"][: snakemake.params.total]
    selected = top_mask(torch.stack([effects[..., at, head] for at, head in heads], -1))
    model = load_rule_model(snakemake)
    with progress_bar(snakemake, "neurons") as bar:
        result = neuron_repair(
            model,
            tokens[rows],
            donors=tokens[donors[rows]],
            heads=heads,
            selected=selected[rows],
            mlps=chosen["mlps"],
            batch=sizes["prompts_at_once"],
            chunk=sizes["rows_at_once"],
            progress=lambda share: bar.update(100 * share),
        )
    result.prompt += rows[0]
    provenance = provenance_of(
        snakemake,
        model,
        watch,
        rows,
        heads=chosen,
        n_neurons=model.layers[chosen["mlps"][0]].neurons.w_out.shape[0],
        conservation_error=result.conservation_error,
        neuron_error=result.neuron_error,
    )
    write_tensors(Path(snakemake.output.tensors), result.arrays(), provenance)


run(snakemake, main)
