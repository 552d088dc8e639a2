"""Measure a few numbers of a sweep's first shard again, by the plain model on the CPU, and compare."""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from common.adapter import run, warn
from common.model_location import location_of_model
from selfrepair.files.agreement import not_checked
from selfrepair.files.archives import restore_shards
from selfrepair.files.provenance import environment
from selfrepair.files.storage import read_tensors, write_json
from selfrepair.model.parts import read_parts
from selfrepair.testing.agreement import (
    Unsuitable,
    compare,
    drawn_places,
    plain_model,
    summed_places,
    tolerance_of,
)
from selfrepair.text.prompts import read_prompts
from selfrepair.vocabulary import SAMPLED


def main(snakemake):
    asked = snakemake.params.settings["sweep.checked_heads"]
    if not asked:
        found = not_checked("sweep.checked_heads is 0")
    elif not snakemake.input.shard:
        found = not_checked("every ablation of the study needs a mean over the sample")
    else:
        try:
            found = checked(snakemake, Path(snakemake.input.shard[0]).with_suffix(".safetensors"))
        except Unsuitable as reason:
            found = not_checked(str(reason).rstrip("."))
    if asked and not found["checked"]:
        warn(
            snakemake,
            f"{snakemake.wildcards.model}: not checked against the plain model: {found['reason']}",
        )
    # Nothing that differs from run to run: tables follow this file.
    made = environment()
    write_json(
        Path(snakemake.output[0]),
        found | {name: made[name] for name in ("versions", "commit", "device", "threads")},
    )


def checked(snakemake, path):
    """The record of a comparison; ExactnessError if the shard is wrong."""
    torch.set_num_threads(snakemake.threads)
    torch.set_float32_matmul_precision("highest")
    if not path.is_file():  # packed
        restore_shards(path.parent.with_suffix(".json"))
    shard, record = read_tensors(path)
    prompts, key = read_prompts(Path(snakemake.input.prompts)), snakemake.wildcards.model
    options = {
        "heads": snakemake.params.settings["sweep.checked_heads"],
        "seed": snakemake.params.settings["seed"],
    }
    if record["tokens"] == SAMPLED:
        places = drawn_places(shard, **options)
    else:
        positions = range(prompts.first_position, prompts.tokens.shape[1] - 1)
        places = summed_places(
            shard, first_prompt=record["prompts"][0], positions=positions, **options
        )
    if not places:
        raise Unsuitable("the first shard holds no token of a head that was ablated")
    dtype = "float64" if record["dtype"] == "float64" else "float32"
    location, revision = location_of_model(snakemake)
    parts = read_parts(Path(snakemake.input.parts))
    same = parts.versions.get("transformers") == version("transformers")
    hooked = plain_model(location, dtype=dtype, revision=revision, parts=parts if same else None)
    tolerance = tolerance_of(record, dtype)
    folder = path.parents[2]
    agreement = compare(
        hooked,
        shard,
        places,
        prompts,
        ablation=record["ablation"],
        tolerance=tolerance,
        name=f"{path} (model {key}, {record['dtype']} on {record['device']})",
        remedy=remedy_of(record, folder),
    )
    return {
        "checked": True,
        "ablation": record["ablation"],
        **asdict(agreement),
        "tolerance": tolerance,
        "shard": {name: record[name] for name in ("sha256", "dtype", "tf32", "device", "tokens")},
        "reference_dtype": dtype,
    }


def remedy_of(record, folder):
    """What to do about a shard that differs from the plain model; folder: of the model's sweeps."""
    again = (
        f"delete {folder} and measure on another device, such as device: cpu, or with another version of torch"
        " or of its driver (sweep.checked_heads: 0 leaves the check out)"
    )
    exact = record["dtype"] in ("float32", "float64") and not record["tf32"]
    coarse = "TF32" if record["tf32"] else record["dtype"]
    return again if exact else f"{coarse} is too coarse for this model (use float32), or {again}"


run(snakemake, main)
