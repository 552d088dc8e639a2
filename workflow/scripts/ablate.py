"""Sweep one ablation over every head, on one shard of the prompts."""

from pathlib import Path

from adapter import run
from rule_model import load_rule_model
from rule_run import progress_bar, provenance_of

from selfrepair.files.provenance import Stopwatch
from selfrepair.files.storage import (
    read_tensors,
    rounded,
    write_tensors,
)
from selfrepair.measure.selection import top_of_every_head
from selfrepair.measure.sweep import sweep
from selfrepair.text.prompts import read_prompts


def main(snakemake):
    watch, sizes = Stopwatch(), snakemake.config["memory"]
    ablation, rows = snakemake.params.ablation, list(snakemake.params.prompts)
    tokens, donors = read_prompts(Path(snakemake.input.prompts))
    wanted = {"mean_z": ablation == "mean", "direct_effect": snakemake.params.tokens == "top"}
    clean, _ = read_tensors(Path(snakemake.input.clean), [k for k, use in wanted.items() if use])
    selected = None
    if "direct_effect" in clean:
        selected = top_of_every_head(clean["direct_effect"][: snakemake.params.total])[rows]
    model = load_rule_model(snakemake)
    with progress_bar(snakemake, ablation) as bar:
        result = sweep(
            model,
            tokens[rows],
            donors=tokens[donors[rows]] if ablation == "resample" else None,
            ablation=ablation,
            mean_z=clean.get("mean_z"),
            selected=selected,
            batch=sizes["prompts_at_once"],
            chunk=sizes["rows_at_once"],
            progress=lambda share: bar.update(100 * share),
        )
    # Direct effects stay exact: they decide the top tokens.
    exact = ["direct_effect", "scale"]
    arrays, rounding = rounded(result.arrays(), snakemake.params.store, keep=exact)
    scale_rounding = rounding.pop("ablated_scale", 0.0)
    provenance = provenance_of(
        snakemake,
        model,
        watch,
        rows,
        ablation=ablation,
        tokens=snakemake.params.tokens,
        conservation_error=result.conservation_error,
        decomposition_error=result.decomposition_error,
        rounding_error=max(rounding.values(), default=0.0),
        scale_rounding=scale_rounding,  # units of the residual stream
    )
    write_tensors(Path(snakemake.output.tensors), arrays, provenance)


run(snakemake, main)
