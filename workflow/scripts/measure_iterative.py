"""Measure how heads react to what is already written, on one shard of the prompts."""

from pathlib import Path

from common.adapter import run
from common.progress import progress_bar
from common.provenance import provenance_of
from common.rule_model import load_rule_model
from common.settings import machine_of
from selfrepair.files.provenance import Stopwatch
from selfrepair.files.storage import read_tensors, write_tensors
from selfrepair.measure.feed_back import feed_back
from selfrepair.measure.refeed import refeed
from selfrepair.measure.selection import draw_tokens, top_of_every_head
from selfrepair.text.prompts import read_prompts
from selfrepair.vocabulary import second_half


def main(snakemake):
    watch, machine = Stopwatch(), machine_of(snakemake)
    settings, rows = snakemake.params.settings, list(snakemake.params.prompts)
    prompts = read_prompts(Path(snakemake.input.prompts))
    tokens, donors = prompts.tokens, prompts.donors
    clean, _ = read_tensors(Path(snakemake.input.clean), ["direct_effect"])
    effects = clean["direct_effect"][: settings["experiments.iterative_prompts"]]
    n_layers, n_heads = effects.shape[2:]
    top = top_of_every_head(effects, first_position=prompts.first_position)
    heads = [(layer, head) for layer in second_half(n_layers) for head in range(n_heads)]
    selected = draw_tokens(
        top[:, :, list(second_half(n_layers))].flatten(2),
        settings["experiments.tokens_per_head"],
        seed=settings["seed"],
    )
    model = load_rule_model(snakemake)
    options = {"batch": machine.prompts_at_once, "chunk": machine.rows_at_once}
    with progress_bar(snakemake, "iterative inference") as bar:
        fed = feed_back(
            model,
            tokens[rows],
            heads=heads,
            selected=selected[rows],
            scalings=settings["experiments.scalings"],
            seed=settings["seed"],
            first_prompt=rows[0],
            progress=lambda share: bar.update(50 * share),
            **options,
        )
        refed = refeed(
            model,
            tokens[rows],
            donors=tokens[donors[rows]],
            selected=top[rows],
            first_position=prompts.first_position,
            progress=lambda share: bar.update(50 * share),
            **options,
        )
    fed.prompt += rows[0]
    provenance = provenance_of(
        snakemake,
        model,
        watch,
        rows,
        bos_token=prompts.bos_token,
        heads=heads,
        scalings=list(settings["experiments.scalings"]),
        conservation_error=max(fed.conservation_error, refed.conservation_error),
    )
    arrays = {f"feed_back.{name}": values for name, values in fed.arrays().items()}
    arrays |= {f"refeed.{name}": values for name, values in refed.arrays().items()}
    write_tensors(Path(snakemake.output.tensors), arrays, provenance)


run(snakemake, main)
