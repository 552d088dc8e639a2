"""Sweep one ablation over every head, on one shard of the prompts."""

import sys
from pathlib import Path

from adapter import run
from rule_model import load_rule_model
from tqdm import tqdm

from selfrepair.corpus import read_prompts
from selfrepair.head_sweep import sweep
from selfrepair.storage import Stopwatch, environment, read_tensors, write_tensors


def main(snakemake):
    watch, config, wildcards = Stopwatch(), snakemake.config, snakemake.wildcards
    ablation = snakemake.params.ablation
    tokens, donors = read_prompts(Path(snakemake.input.prompts))
    rows = list(snakemake.params.prompts)
    clean, _ = read_tensors(Path(snakemake.input.clean))
    model = load_rule_model(snakemake)
    name = f"{wildcards.model} {ablation} {int(wildcards.shard) + 1}/{wildcards.shards}"
    bar = tqdm(total=100, desc=name, file=Lines(), bar_format=FORMAT, mininterval=10, miniters=0)
    with bar:
        result = sweep(
            model,
            tokens[rows],
            donors=tokens[donors[rows]] if ablation == "resample" else None,
            ablation=ablation,
            mean_z=clean["mean_z"] if ablation == "mean" else None,
            batch=config["sweep"]["batch"],
            chunk=config["sweep"]["chunk"],
            progress=lambda share: bar.update(100 * share),
        )
    provenance = {
        "study": config["study"],
        "model": wildcards.model,
        "architecture": model.architecture,
        "ablation": ablation,
        "dtype": model.dtype_name,
        "seed": config["seed"],
        "prompts": [rows[0], rows[-1] + 1],
        "conservation_error": result.conservation_error,
        "decomposition_error": result.decomposition_error,
        "wall_seconds": watch.seconds(),
        "config": config,
        **environment(),
    }
    write_tensors(Path(snakemake.output.tensors), result.arrays(), provenance)


class Lines:
    """Standard error, a line per report: jobs run side by side and must not overwrite each other."""

    def write(self, text):
        if text.strip():
            print(text.strip(), file=sys.stderr, flush=True)

    def flush(self):
        pass


FORMAT = "{desc}: {percentage:3.0f} % after {elapsed}, {remaining} left"

run(snakemake, main)
