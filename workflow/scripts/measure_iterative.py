"""Measure how heads react to what is already written, on one shard of the prompts."""

from pathlib import Path

from adapter import run
from rule_model import load_rule_model
from rule_run import progress_bar, provenance_of

from selfrepair.files.provenance import Stopwatch
from selfrepair.files.storage import read_tensors, write_tensors
from selfrepair.measure.feed_back import feed_back
from selfrepair.measure.refeed import refeed
from selfrepair.measure.selection import draw_tokens, top_of_every_head
from selfrepair.text.prompts import read_prompts
from selfrepair.vocabulary import second_half


def main(snakemake):
    watch, sizes, params = Stopwatch(), snakemake.config["memory"], snakemake.params
    rows = list(params.prompts)
    tokens, donors = read_prompts(Path(snakemake.input.prompts))
    clean, _ = read_tensors(Path(snakemake.input.clean), ["direct_effect"])
    effects = clean["direct_effect"][: params.total]
    n_layers, n_heads = effects.shape[2:]
    top = top_of_every_head(effects)
    heads = [(layer, head) for layer in second_half(n_layers) for head in range(n_heads)]
    selected = draw_tokens(
        top[:, :, list(second_half(n_layers))].flatten(2), params.tokens, seed=params.seed
    )
    model = load_rule_model(snakemake)
    options = {"batch": sizes["prompts_at_once"], "chunk": sizes["rows_at_once"]}
    with progress_bar(snakemake, "iterative inference") as bar:
        fed = feed_back(
            model,
            tokens[rows],
            heads=heads,
            selected=selected[rows],
            scalings=params.scalings,
            seed=params.seed,
            first_prompt=rows[0],
            progress=lambda share: bar.update(50 * share),
            **options,
        )
        refed = refeed(
            model,
            tokens[rows],
            donors=tokens[donors[rows]],
            selected=top[rows],
            progress=lambda share: bar.update(50 * share),
            **options,
        )
    fed.prompt += rows[0]
    provenance = provenance_of(
        snakemake,
        model,
        watch,
        rows,
        heads=heads,
        scalings=list(params.scalings),
        conservation_error=max(fed.conservation_error, refed.conservation_error),
    )
    arrays = {f"feed_back.{name}": values for name, values in fed.arrays().items()}
    arrays |= {f"refeed.{name}": values for name, values in refed.arrays().items()}
    write_tensors(Path(snakemake.output.tensors), arrays, provenance)


run(snakemake, main)
