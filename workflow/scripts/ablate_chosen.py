"""Ablate chosen heads and heads of the last layer, token by token, on one shard of the prompts."""

from pathlib import Path

from common.adapter import run
from common.progress import progress_bar
from common.provenance import provenance_of
from common.rule_model import load_rule_model
from common.settings import machine_of
from selfrepair.files.provenance import Stopwatch
from selfrepair.files.storage import read_json, read_tensors, write_tensors
from selfrepair.measure.chosen_heads import chosen_arrays, heads_by_ablation
from selfrepair.measure.sweep import sweep_each
from selfrepair.text.prompts import read_prompts


def main(snakemake):
    watch, machine = Stopwatch(), machine_of(snakemake)
    rows = list(snakemake.params.prompts)
    prompts = read_prompts(Path(snakemake.input.prompts))
    tokens, donors = prompts.tokens, prompts.donors
    clean, _ = read_tensors(Path(snakemake.input.clean), ["mean_z"])
    chosen = read_json(Path(snakemake.input.heads))
    heads, last = ([tuple(h) for h in chosen[k]] for k in ("heads", "last_layer_heads"))
    model = load_rule_model(snakemake)
    with progress_bar(snakemake, "chosen heads") as bar:
        results = sweep_each(
            model,
            tokens[rows],
            heads_by_ablation(heads, last),
            donors=tokens[donors[rows]],
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
    arrays = chosen_arrays(results, heads, last)
    write_tensors(Path(snakemake.output.tensors), arrays, provenance)


run(snakemake, main)
