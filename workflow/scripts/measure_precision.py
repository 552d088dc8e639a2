"""Measure how far a study's number format is from float32, on a few heads and prompts."""

import gc
from pathlib import Path

from common.adapter import run
from common.rule_model import load_rule_model
from selfrepair.files.provenance import Stopwatch, environment
from selfrepair.files.storage import write_json
from selfrepair.measure.precision import PROMPTS, differences, probed_heads
from selfrepair.measure.sweep import sweep
from selfrepair.text.prompts import read_prompts


def main(snakemake):
    watch = Stopwatch()
    prompts = read_prompts(Path(snakemake.input.prompts))
    tokens, donors = prompts.tokens, prompts.donors
    rows = list(range(PROMPTS))

    def measured(**precision):
        model = load_rule_model(snakemake, **precision)
        heads = probed_heads(model)
        found = sweep(model, tokens[rows], donors=tokens[donors[rows]], heads=heads, batch=1)
        return heads, found

    heads, own = measured()
    gc.collect()  # the two models need not fit beside each other
    _, reference = measured(dtype="float32", tf32=False)
    found = {
        "dtype": snakemake.params.settings["dtype"],
        "tf32": snakemake.params.settings["tf32"],
        "prompts": PROMPTS,
        "heads": heads,
        "differences_from_float32": differences(
            own, reference, heads, first_position=prompts.first_position
        ),
        "wall_seconds": watch.seconds(),
        **environment(),
    }
    write_json(Path(snakemake.output[0]), found)


run(snakemake, main)
