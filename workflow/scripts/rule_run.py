"""What the scripts that measure with a model have in common: progress, and how it was made."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from selfrepair.files.provenance import Stopwatch, environment
from selfrepair.files.storage import read_json

FORMAT = "{desc}: {percentage:3.0f} % after {elapsed}, {remaining} left"


class Lines:
    """Standard error, a line per report: jobs run side by side and must not overwrite each other."""

    def write(self, text: str) -> None:
        if text.strip():
            print(text.strip(), file=sys.stderr, flush=True)

    def flush(self) -> None:
        pass


def progress_bar(snakemake: Any, name: str) -> tqdm:
    """A bar of 100 for one shard of `name`."""
    wildcards = snakemake.wildcards
    title = f"{wildcards.model} {name} {int(wildcards.shard) + 1}/{wildcards.shards}"
    return tqdm(total=100, desc=title, file=Lines(), bar_format=FORMAT, mininterval=10, miniters=0)


def provenance_of(
    snakemake: Any, model: Any, watch: Stopwatch, rows: Sequence[int], **facts: Any
) -> dict[str, Any]:
    """How tensors were measured on consecutive prompts; facts: what is particular to them."""
    config = snakemake.config
    precision = {"tf32": snakemake.params.tf32}
    for path in snakemake.input.get("precision", []):
        measured = read_json(Path(path))["differences_from_float32"]
        # Logits, against float32 on a few heads and prompts.
        precision["precision_error"] = measured["self_repair"]["largest"]
    return {
        "study": config["study"],
        "model": snakemake.wildcards.model,
        "model_commit": model.commit,
        "architecture": model.architecture,
        "dtype": model.dtype_name,
        **precision,
        "seed": config["seed"],
        "prompts": [rows[0], rows[-1] + 1],
        **facts,
        "wall_seconds": watch.seconds(),
        "config": config,
        **environment(),
    }
