"""Ablate pairs of heads one at a time and together, on one shard of the last prompts of the sample."""

from pathlib import Path

from common.adapter import run
from common.progress import progress_bar
from common.provenance import provenance_of
from common.rule_model import load_rule_model
from common.settings import machine_of
from selfrepair.files.provenance import Stopwatch
from selfrepair.files.storage import read_json, read_tensors, write_tensors
from selfrepair.measure.co_ablation import co_ablation, draw_pair_tokens
from selfrepair.text.prompts import read_prompts


def main(snakemake):
    watch, machine = Stopwatch(), machine_of(snakemake)
    settings, rows = snakemake.params.settings, list(snakemake.params.prompts)
    prompts = read_prompts(Path(snakemake.input.prompts))
    clean, _ = read_tensors(Path(snakemake.input.clean), ["top_token"])
    chosen = read_json(Path(snakemake.input.pairs))
    pairs = [(tuple(pair["first"]), tuple(pair["second"])) for pair in chosen["pairs"]]
    total = settings["experiments.pair_prompts"]
    first = len(prompts.tokens) - total
    selected = draw_pair_tokens(
        clean["top_token"],
        pairs,
        positions=prompts.tokens.shape[1] - 1,
        prompts=range(first, first + total),
        tokens_per_pair=settings["experiments.chosen_tokens_per_head"],
        seed=settings["seed"],
    )
    places = [first + row for row in rows]
    model = load_rule_model(snakemake)
    with progress_bar(snakemake, "pairs of heads") as bar:
        result = co_ablation(
            model,
            prompts.tokens[places],
            donors=prompts.tokens[prompts.donors[places]],
            pairs=pairs,
            selected=selected[rows],
            batch=machine.prompts_at_once,
            chunk=machine.rows_at_once,
            progress=lambda share: bar.update(100 * share),
        )
    result.prompt += rows[0]
    provenance = provenance_of(
        snakemake,
        model,
        watch,
        rows,  # counted from the first of the prompts that pairs are ablated on
        first_prompt=first,
        bos_token=prompts.bos_token,
        heads=chosen,
        conservation_error=result.conservation_error,
    )
    write_tensors(Path(snakemake.output.tensors), result.arrays(), provenance)


run(snakemake, main)
