"""What is written beside tensors of an experiment that the study leaves out: no model was run for them."""

from typing import Any

from selfrepair.files.provenance import Stopwatch, environment


def not_measured(
    snakemake: Any, watch: Stopwatch, *, rows: tuple[int, int] = (0, 0), **facts: Any
) -> dict[str, Any]:
    """The study, the model and the machine; rows: first prompt and the one after the last; facts: what
    is particular to these tensors."""
    return {
        "study": snakemake.config["study"],
        "model": snakemake.wildcards.model,
        "prompts": list(rows),
        **facts,
        "wall_seconds": watch.seconds(),
        "config": snakemake.config,
        **environment(),
    }
