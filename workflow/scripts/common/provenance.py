"""How tensors were measured: what is written beside each shard."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfrepair.files.provenance import Stopwatch, environment
from selfrepair.files.storage import read_json
from selfrepair.model.weights import weights_record


def provenance_of(
    snakemake: Any, model: Any, watch: Stopwatch, rows: Sequence[int], **facts: Any
) -> dict[str, Any]:
    """The study, the model, the number format and the machine; rows: consecutive prompts; facts: what is
    particular to these tensors."""
    config = snakemake.config
    precision = {"tf32": snakemake.params.settings["tf32"]}
    for path in snakemake.input.get("precision", []):
        measured = read_json(Path(path))["differences_from_float32"]
        # Logits, against float32 on a few heads and prompts.
        precision["precision_error"] = measured["self_repair"]["largest"]
    weights = weights_record(model.name)
    return {
        "study": config["study"],
        "model": snakemake.wildcards.model,
        "model_commit": weights["commit"] if weights else model.commit,
        "weights": weights,
        "architecture": model.architecture,
        "dtype": model.dtype_name,
        # What the model multiplies its logits by, part of every number in logits; 1: nothing.
        "logit_scale": model.logit_scale,
        # Logits are measured before this cap; null: the model has none.
        "logit_softcap": model.logit_softcap,
        **precision,
        "seed": config["seed"],
        "prompts": [rows[0], rows[-1] + 1],
        **facts,
        "wall_seconds": watch.seconds(),
        "config": config,
        **environment(),
    }
