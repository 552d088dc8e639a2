"""Ablate chosen heads and heads of the last layer on their drawn tokens, on one shard of the prompts."""

from pathlib import Path

from common.adapter import run
from common.progress import progress_bar
from common.provenance import provenance_of
from common.rule_model import load_rule_model
from common.settings import machine_of
from selfrepair.files.provenance import Stopwatch
from selfrepair.files.storage import read_json, read_tensors, write_tensors
from selfrepair.measure.chosen_heads import chosen_arrays, tokens_by_ablation
from selfrepair.measure.drawing import draw_tokens
from selfrepair.measure.token_sweep import sweep_tokens_each
from selfrepair.text.prompts import read_prompts


def main(snakemake):
    watch, machine = Stopwatch(), machine_of(snakemake)
    settings, rows = snakemake.params.settings, list(snakemake.params.prompts)
    prompts = read_prompts(Path(snakemake.input.prompts))
    tokens, donors = prompts.tokens[rows], prompts.tokens[prompts.donors[rows]]
    clean, _ = read_tensors(Path(snakemake.input.clean), ["mean_z", "top_token"])
    chosen = read_json(Path(snakemake.input.heads))
    heads, last = ([tuple(h) for h in chosen[k]] for k in ("heads", "last_layer_heads"))
    drawn = draw_tokens(
        clean["top_token"],
        positions=tokens.shape[1] - 1,
        prompts=settings["experiments.prompts"],
        tokens_per_head=settings["experiments.chosen_tokens_per_head"],
        random_tokens_per_head=settings["experiments.chosen_random_tokens_per_head"],
        first_position=prompts.first_position,
        seed=settings["seed"],
        heads=sorted({*heads, *last}),
    )
    here = drawn.in_prompts(range(rows[0], rows[-1] + 1))
    asked = tokens_by_ablation(here, heads, last)
    model = load_rule_model(snakemake)
    with progress_bar(snakemake, "chosen heads") as bar:
        results = sweep_tokens_each(
            model,
            tokens,
            asked,
            donors=donors,
            mean_z=clean["mean_z"],
            batch=machine.prompts_at_once,
            chunk=machine.rows_at_once,
            progress=lambda share: bar.update(100 * share),
        )
    errors = ("conservation_error", "decomposition_error")
    provenance = provenance_of(
        snakemake,
        model,
        watch,
        rows,
        bos_token=prompts.bos_token,
        heads=chosen,
        **{name: max(getattr(r, name) for r in results.values()) for name in errors},
    )
    arrays = chosen_arrays(results, asked, heads, last, first_prompt=rows[0])
    write_tensors(Path(snakemake.output.tensors), arrays, provenance)


run(snakemake, main)
