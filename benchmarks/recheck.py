"""Whether this machine finds what a recorded sweep found, perhaps on another one.

    .venv/bin/python benchmarks/recheck.py config/families.yaml smollm2 [prompts]

Measures the drawn tokens of the first prompts again under resample ablation, by default of 8, and prints the
largest differences from what is stored, in logits (scales in units of the residual stream).
"""

import sys
from pathlib import Path

import polars as pl
import torch
from sweep import ROOT

import selfrepair
from selfrepair.ablations import RESAMPLE
from selfrepair.files.archives import restore_shards
from selfrepair.files.provenance import environment
from selfrepair.files.shards import read_instances, shard_files
from selfrepair.files.storage import read_json, sidecar
from selfrepair.files.wheels import wheels_of
from selfrepair.measure.drawing import DrawnTokens
from selfrepair.measure.token_sweep import MEASURED, sweep_tokens
from selfrepair.model.parts import read_parts
from selfrepair.model.weights import model_location
from selfrepair.study.config import read_study
from selfrepair.text.prompts import read_prompts


def main(config_file: str, key: str, count: str = "8") -> None:
    config = read_study(Path(config_file), schema=ROOT / "config/schema.yaml")
    folder, rows = ROOT / "results" / config["study"] / key, range(int(count))
    index = folder / f"sweeps/{RESAMPLE.name}.json"
    restore_shards(index)
    stored = read_instances(index)
    drawn = DrawnTokens.from_table(pl.read_parquet(folder / f"drawn/{RESAMPLE.name}.parquet"))
    here = drawn.lie_in(rows)
    prompts = read_prompts(folder / "prompts.parquet")
    model = selfrepair.load_model(
        model_location(
            config["models"][key], wheels_of(config["wheels"]), ROOT / config["cache"], key=key
        ),
        dtype=config["dtype"],
        parts=read_parts(folder / "parts.json"),
    )
    found = sweep_tokens(
        model,
        prompts.tokens[: len(rows)],
        drawn.in_prompts(rows),
        donors=prompts.tokens[prompts.donors[: len(rows)]],
    )
    shard = read_json(sidecar(shard_files(index)[0]))
    print(f"{key}: {int(here.sum())} tokens of {len(rows)} prompts")
    print(
        f"stored: {shard['device']}, torch {shard['versions']['torch']}, commit {shard['commit']}"
    )
    now = environment()
    print(f"here:   {now['device']}, torch {now['versions']['torch']}")
    for name in MEASURED:
        if name not in stored:
            continue
        error = (getattr(found, name) - torch.as_tensor(stored[name])[here]).abs()
        print(f"  {name}: {float(error.max()):.1e}")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit((__doc__ or "").strip())
    main(*sys.argv[1:])
