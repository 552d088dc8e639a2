"""Ablate every head where the narrow task's prompts predict their answer, on one shard of these prompts."""

from pathlib import Path

import polars as pl
import torch

from common.adapter import run
from common.progress import progress_bar
from common.provenance import provenance_of
from common.rule_model import load_rule_model
from common.settings import machine_of
from selfrepair.files.provenance import Stopwatch
from selfrepair.files.storage import rounded, write_tensors
from selfrepair.measure.narrow import narrow_task

# Stored as measured; of all else half the digits are enough for means over prompts, and half the room.
EXACT = {"answer_logit", "subject_logit", "most_likely", "direct_effect", "map.sums", "map.prompts"}


def main(snakemake):
    watch, machine = Stopwatch(), machine_of(snakemake)
    rows = list(snakemake.params.prompts)
    # Without a row if the task is not possible for this tokenizer.
    prompts = pl.read_parquet(snakemake.input.narrow)
    some = prompts.filter(pl.col("prompt").is_in(rows)).sort("prompt")
    model = load_rule_model(snakemake)
    with progress_bar(snakemake, "narrow task") as bar:
        result = narrow_task(
            model,
            tokens_of(some, "tokens"),
            donors=tokens_of(some, "donor_tokens"),
            subject=torch.tensor(some["subject_token"].to_list(), dtype=torch.int64),
            batch=machine.prompts_at_once,
            chunk=machine.rows_at_once,
            progress=lambda share: bar.update(100 * share),
        )
    arrays, rounding = result.arrays(), {}
    if result.n_prompts:
        arrays, rounding = rounded(arrays, "float16", keep=EXACT)
    provenance = provenance_of(
        snakemake,
        model,
        watch,
        rows,  # of the task, not of the sample
        bos_token=None if prompts.is_empty() else prompts["bos_token"][0],
        conservation_error=result.conservation_error,
        decomposition_error=result.decomposition_error,
        map_error=result.map_error,
        rounding_error=max(rounding.values(), default=0.0),
    )
    write_tensors(Path(snakemake.output.tensors), arrays, provenance)


def tokens_of(prompts, column):
    """Rows of tokens, all of one length; [0, 2] if there are none."""
    rows = prompts[column].to_list()
    return torch.tensor(rows) if rows else torch.zeros(0, 2, dtype=torch.int64)


run(snakemake, main)
