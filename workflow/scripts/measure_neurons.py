"""Measure the neurons that make up for chosen heads, on one shard of the prompts."""

from pathlib import Path
from types import SimpleNamespace

from common.adapter import run
from common.progress import progress_bar
from common.provenance import provenance_of
from common.rule_model import load_rule_model
from common.settings import machine_of
from selfrepair.files.provenance import Stopwatch
from selfrepair.files.storage import read_json, read_tensors, write_tensors
from selfrepair.measure.drawing import draw_tokens
from selfrepair.measure.neurons import neuron_repair, no_neuron_repair
from selfrepair.text.prompts import read_prompts
from selfrepair.vocabulary import NO_NEURONS


def main(snakemake):
    watch, machine = Stopwatch(), machine_of(snakemake)
    rows = list(snakemake.params.prompts)
    clean, made = read_tensors(Path(snakemake.input.clean), ["top_token"])
    chosen = read_json(Path(snakemake.input.heads))
    if not all(made["neuron_layers"][mlp] for mlp in chosen["mlps"]):
        leave_out(snakemake, made, chosen, watch, rows)
        return
    prompts = read_prompts(Path(snakemake.input.prompts))
    tokens, donors = prompts.tokens, prompts.donors
    heads = [tuple(head) for head in chosen["heads"]]
    settings, positions = snakemake.params.settings, tokens.shape[1] - 1
    total = settings["experiments.prompts"]
    drawn = draw_tokens(
        clean["top_token"],
        positions=positions,
        prompts=total,
        tokens_per_head=settings["experiments.chosen_tokens_per_head"],
        random_tokens_per_head=0,
        first_position=prompts.first_position,
        seed=settings["seed"],
        heads=sorted(set(heads)),
    )
    selected = drawn.mask(heads, prompts=total, positions=positions)
    model = load_rule_model(snakemake)
    with progress_bar(snakemake, "neurons") as bar:
        result = neuron_repair(
            model,
            tokens[rows],
            donors=tokens[donors[rows]],
            heads=heads,
            selected=selected[rows],
            mlps=chosen["mlps"],
            batch=machine.prompts_at_once,
            chunk=machine.rows_at_once,
            progress=lambda share: bar.update(100 * share),
        )
    result.prompt += rows[0]
    provenance = provenance_of(
        snakemake,
        model,
        watch,
        rows,
        bos_token=prompts.bos_token,
        heads=chosen,
        n_neurons=model.layers[chosen["mlps"][0]].neurons.w_out.shape[0],
        conservation_error=result.conservation_error,
        neuron_error=result.neuron_error,
    )
    write_tensors(Path(snakemake.output.tensors), result.arrays(), provenance)


def leave_out(snakemake, made, chosen, watch, rows):
    """Write a shard without an instance that says why; made: what the clean pass says of the model, which
    is not loaded for this."""
    model = SimpleNamespace(
        name="",  # its weights were looked up for the clean pass
        commit=made["model_commit"],
        architecture=made["architecture"],
        dtype_name=made["dtype"],
        logit_scale=made["logit_scale"],
        logit_softcap=made["logit_softcap"],
    )
    nothing = no_neuron_repair(len(chosen["heads"]), len(chosen["mlps"]))
    provenance = provenance_of(
        snakemake,
        model,
        watch,
        rows,
        heads=chosen,
        weights=made["weights"],
        bos_token=made["bos_token"],
        not_measured=NO_NEURONS,
    )
    write_tensors(Path(snakemake.output.tensors), nothing.arrays(), provenance)


run(snakemake, main)
