"""Measure one shard of the sample unchanged: direct effects, mean activations."""

from pathlib import Path

from common.adapter import run, warn
from common.model_location import location_of_model
from common.progress import progress_bar
from common.provenance import provenance_of
from common.rule_model import load_rule_model
from common.settings import machine_of
from selfrepair.errors import InputError
from selfrepair.files.provenance import Stopwatch
from selfrepair.files.storage import write_tensors
from selfrepair.measure.bos_trial import bos_trial
from selfrepair.measure.clean_pass import clean_shard
from selfrepair.measure.notes import neuron_layers, notes_about
from selfrepair.model.tokenizer import bos_token_of, load_tokenizer
from selfrepair.text.prompts import read_prompts


def main(snakemake):
    watch = Stopwatch()
    rows = list(snakemake.params.prompts)
    prompts = read_prompts(Path(snakemake.input.prompts))
    tokens = prompts.tokens
    model = load_rule_model(snakemake)
    with progress_bar(snakemake, "clean pass") as bar:
        clean = clean_shard(
            model,
            tokens[rows],
            candidate_share=snakemake.params.settings["clean.candidate_share"],
            first_position=prompts.first_position,
            batch=machine_of(snakemake).prompts_at_once,
            progress=lambda share: bar.update(100 * share),
        )
    # The first prompts of the sample are tried, once.
    trial, warnings = tried_both_ways(snakemake, model, prompts) if rows[0] == 0 else (None, [])
    provenance = provenance_of(
        snakemake,
        model,
        watch,
        rows,
        tokens_per_prompt=tokens.shape[1],
        bos_token=prompts.bos_token,
        bos_trial=trial,
        warnings=warnings,
        parallel_layers=[layer.parallel for layer in model.layers],
        neuron_layers=neuron_layers(model),
        notes=notes_about(model),
        conservation_error=clean.conservation_error,
        mean_surprisal_nats=float(clean.surprisal.mean()),
    )
    write_tensors(Path(snakemake.output.tensors), clean.arrays(), provenance)


def tried_both_ways(snakemake, model, prompts):
    """Losses with and without a beginning-of-sequence token, and what there is to warn of."""
    bos_token = prompts.bos_token
    if bos_token is None:
        location, revision = location_of_model(snakemake)
        try:
            bos_token = bos_token_of(load_tokenizer(location, revision=revision), "always")
        except InputError:  # it has no such token: nothing to try
            return None, []
    had_bos = prompts.bos_token is not None
    trial = bos_trial(model, prompts.tokens, had_bos=had_bos, bos_token=bos_token)
    if trial is None:
        return None, []
    losses = {
        "prompts": trial.prompts,
        "with_bos_nats": trial.with_bos,
        "without_bos_nats": trial.without_bos,
        "difference_standard_error": trial.standard_error,
    }
    if not trial.better_the_other_way:
        return losses, []
    line = trial.warning(snakemake.wildcards.model)
    warn(snakemake, line)
    return losses, [line]


run(snakemake, main)
