"""Measure how heads react to what is already written, on one shard of the prompts."""

from pathlib import Path

from common.adapter import run
from common.progress import progress_bar
from common.provenance import provenance_of
from common.rule_model import load_rule_model
from common.settings import machine_of
from selfrepair.files.provenance import Stopwatch
from selfrepair.files.storage import read_tensors, write_tensors
from selfrepair.measure.drawing import draw_tokens
from selfrepair.measure.iterative import iterative_inference
from selfrepair.text.prompts import read_prompts
from selfrepair.vocabulary import second_half


def main(snakemake):
    watch, machine = Stopwatch(), machine_of(snakemake)
    settings, rows = snakemake.params.settings, list(snakemake.params.prompts)
    prompts = read_prompts(Path(snakemake.input.prompts))
    tokens, donors = prompts.tokens, prompts.donors
    clean, _ = read_tensors(Path(snakemake.input.clean), ["top_token"])
    n_layers, n_heads, _ = clean["top_token"].shape
    sizes = {
        "prompts": settings["experiments.iterative_prompts"],
        "positions": tokens.shape[1] - 1,
    }
    heads = [(layer, head) for layer in second_half(n_layers) for head in range(n_heads)]
    every_head = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]

    def drawn(of_heads, count):
        found = draw_tokens(
            clean["top_token"],
            tokens_per_head=count,
            random_tokens_per_head=0,
            first_position=prompts.first_position,
            seed=settings["seed"],
            heads=of_heads,
            **sizes,
        )
        return found.mask(of_heads, **sizes)[rows]

    top = drawn(every_head, None).unflatten(-1, (n_layers, n_heads))
    model = load_rule_model(snakemake)
    with progress_bar(snakemake, "iterative inference") as bar:
        fed, refed = iterative_inference(
            model,
            tokens[rows],
            donors=tokens[donors[rows]],
            heads=heads,
            selected=drawn(heads, settings["experiments.iterative_tokens_per_head"]),
            top=top,
            scalings=settings["experiments.scalings"],
            seed=settings["seed"],
            first_prompt=rows[0],
            first_position=prompts.first_position,
            batch=machine.prompts_at_once,
            chunk=machine.rows_at_once,
            progress=lambda share: bar.update(100 * share),
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
