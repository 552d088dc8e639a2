"""Measure the whole sample unchanged: direct effects, mean activations."""

from pathlib import Path

from common.adapter import run
from common.provenance import provenance_of
from common.rule_model import load_rule_model
from common.settings import machine_of
from selfrepair.files.provenance import Stopwatch
from selfrepair.files.storage import write_tensors
from selfrepair.measure.clean_pass import clean_pass
from selfrepair.measure.notes import neuron_layers, notes_about
from selfrepair.text.prompts import read_prompts


def main(snakemake):
    watch = Stopwatch()
    tokens, _ = read_prompts(Path(snakemake.input.prompts))
    model = load_rule_model(snakemake)
    clean = clean_pass(model, tokens, batch=machine_of(snakemake).prompts_at_once)
    provenance = provenance_of(
        snakemake,
        model,
        watch,
        range(len(tokens)),
        tokens_per_prompt=tokens.shape[1],
        parallel_layers=[layer.parallel for layer in model.layers],
        neuron_layers=neuron_layers(model),
        notes=notes_about(model),
        conservation_error=clean.conservation_error,
        mean_surprisal_nats=float(clean.surprisal.mean()),
    )
    tensors = {
        "direct_effect": clean.direct_effect,
        "scale": clean.scale,
        "logit": clean.logit,
        "surprisal": clean.surprisal,
        "mean_z": clean.mean_z,
    }
    write_tensors(Path(snakemake.output.tensors), tensors, provenance)


run(snakemake, main)
