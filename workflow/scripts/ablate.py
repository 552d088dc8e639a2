"""Sweep one ablation over every head, on one shard of the prompts."""

from pathlib import Path

from common.adapter import run
from common.progress import progress_bar
from common.provenance import provenance_of
from common.rule_model import load_rule_model
from common.settings import machine_of
from selfrepair.ablations import ABLATIONS, DONORS, MEANS
from selfrepair.files.provenance import Stopwatch
from selfrepair.files.storage import read_tensors, rounded, write_tensors
from selfrepair.measure.selection import top_of_every_head
from selfrepair.measure.sweep import sweep
from selfrepair.text.prompts import read_prompts


def main(snakemake):
    watch, machine = Stopwatch(), machine_of(snakemake)
    settings, rows = snakemake.params.settings, list(snakemake.params.prompts)
    ablation = ABLATIONS[snakemake.params.ablation]
    prompts = read_prompts(Path(snakemake.input.prompts))
    tokens, donors = prompts.tokens, prompts.donors
    top_alone = settings["sweep.tokens"] == "top"
    wanted = {"mean_z": MEANS in ablation.needs, "direct_effect": top_alone}
    clean, _ = read_tensors(Path(snakemake.input.clean), [k for k, use in wanted.items() if use])
    selected = None
    if top_alone:
        total = settings[f"ablations.{ablation.name}.prompts"]
        effects = clean["direct_effect"][:total]
        selected = top_of_every_head(effects, first_position=prompts.first_position)[rows]
    model = load_rule_model(snakemake)
    with progress_bar(snakemake, ablation.name) as bar:
        result = sweep(
            model,
            tokens[rows],
            donors=tokens[donors[rows]] if DONORS in ablation.needs else None,
            ablation=ablation.name,
            mean_z=clean.get("mean_z"),
            selected=selected,
            batch=machine.prompts_at_once,
            chunk=machine.rows_at_once,
            progress=lambda share: bar.update(100 * share),
        )
    # Direct effects stay exact: they decide the top tokens.
    exact = ["direct_effect", "scale"]
    arrays, rounding = rounded(result.arrays(), settings["sweep.store"], keep=exact)
    scale_rounding = rounding.pop("ablated_scale", 0.0)
    provenance = provenance_of(
        snakemake,
        model,
        watch,
        rows,
        bos_token=prompts.bos_token,
        ablation=ablation.name,
        tokens=settings["sweep.tokens"],
        conservation_error=result.conservation_error,
        decomposition_error=result.decomposition_error,
        rounding_error=max(rounding.values(), default=0.0),
        scale_rounding=scale_rounding,  # units of the residual stream
    )
    write_tensors(Path(snakemake.output.tensors), arrays, provenance)


run(snakemake, main)
