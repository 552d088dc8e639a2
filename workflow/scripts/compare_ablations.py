"""Ablate the heads whose constants were trained in every way, on one shard of the prompts."""

from pathlib import Path

from common.adapter import run
from common.not_measured import not_measured
from common.progress import progress_bar
from common.provenance import provenance_of
from common.rule_model import load_rule_model
from common.settings import machine_of
from selfrepair.files.provenance import Stopwatch
from selfrepair.files.storage import read_tensors, write_tensors
from selfrepair.measure.compared_ablations import compare_ablations, no_comparison
from selfrepair.measure.drawing import draw_tokens
from selfrepair.text.prompts import read_prompts


def main(snakemake):
    watch, machine = Stopwatch(), machine_of(snakemake)
    settings, rows = snakemake.params.settings, list(snakemake.params.prompts)
    prompts = read_prompts(Path(snakemake.input.prompts))
    tokens, donors = prompts.tokens[rows], prompts.tokens[prompts.donors[rows]]
    clean, _ = read_tensors(Path(snakemake.input.clean), ["mean_z", "top_token"])
    trained, made = read_tensors(Path(snakemake.input.constants))
    heads = [tuple(head) for head in made["heads"]]
    about = {"heads": made["heads"], "training_loss": trained["loss"].tolist()}
    output = Path(snakemake.output.tensors)
    if not heads:
        rows = rows[0], rows[-1] + 1
        write_tensors(
            output, no_comparison().arrays(), not_measured(snakemake, watch, rows=rows, heads=about)
        )
        return
    drawn = draw_tokens(
        clean["top_token"],
        positions=tokens.shape[1] - 1,
        prompts=settings["experiments.prompts"],
        tokens_per_head=settings["experiments.chosen_tokens_per_head"],
        random_tokens_per_head=0,
        first_position=prompts.first_position,
        seed=settings["seed"],
        heads=heads,
    )
    model = load_rule_model(snakemake)
    with progress_bar(snakemake, "every ablation") as bar:
        result = compare_ablations(
            model,
            tokens,
            drawn.in_prompts(range(rows[0], rows[-1] + 1)),
            heads=heads,
            donors=donors,
            mean_z=clean["mean_z"],
            constants=trained["constant"],
            first_position=prompts.first_position,
            first_prompt=rows[0],
            seed=settings["seed"],
            batch=machine.prompts_at_once,
            chunk=machine.rows_at_once,
            progress=lambda share: bar.update(100 * share),
        )
    result.prompt += rows[0]
    provenance = provenance_of(
        snakemake,
        model,
        watch,
        rows,
        bos_token=prompts.bos_token,
        heads=about,
        conservation_error=result.conservation_error,
        decomposition_error=result.decomposition_error,
    )
    write_tensors(output, result.arrays(), provenance)


run(snakemake, main)
