"""Sweep one ablation over every head, on one shard of the prompts: on drawn tokens, or on all."""

from pathlib import Path

import numpy as np
import polars as pl
import torch

from common.adapter import run
from common.progress import progress_bar
from common.provenance import provenance_of
from common.rule_model import load_rule_model
from common.settings import machine_of
from selfrepair.ablations import ABLATIONS, DONORS, MEANS
from selfrepair.files.provenance import Stopwatch
from selfrepair.files.storage import read_tensors, rounded, write_tensors
from selfrepair.measure.drawing import DrawnTokens, draw_tokens
from selfrepair.measure.prompt_sums import joined, summed
from selfrepair.measure.sweep import sweep
from selfrepair.measure.token_sweep import sweep_tokens
from selfrepair.model.sizes import prompts_at_once
from selfrepair.text.prompts import read_prompts
from selfrepair.vocabulary import SAMPLED

# Of drawn tokens, exact whatever the number format of the other effects.
EXACT = {"prompt", "position", "layer", "head", "top", "random", "direct_effect", "scale"}


def main(snakemake):
    watch, machine = Stopwatch(), machine_of(snakemake)
    settings, rows = snakemake.params.settings, list(snakemake.params.prompts)
    ablation = ABLATIONS[snakemake.params.ablation]
    prompts = read_prompts(Path(snakemake.input.prompts))
    sampled = settings["sweep.tokens"] == SAMPLED
    wanted = {"mean_z": MEANS in ablation.needs, "top_token": not sampled}
    clean, _ = read_tensors(Path(snakemake.input.clean), [k for k, use in wanted.items() if use])
    model = load_rule_model(snakemake)
    options = {
        "ablation": ablation.name,
        "mean_z": clean.get("mean_z"),
        "batch": machine.prompts_at_once,
        "chunk": machine.rows_at_once,
    }
    with progress_bar(snakemake, ablation.name) as bar:
        if sampled:
            drawn = DrawnTokens.from_table(pl.read_parquet(snakemake.input.drawn))
            options["mapped"] = settings[f"ablations.{ablation.name}.map"]
            arrays, facts = sweep_drawn(model, prompts, rows, drawn, options, bar)
            arrays, rounding = smaller(arrays, settings["sweep.store"])
            facts |= {"mapped": options["mapped"], **rounding}
        else:
            arrays, facts = sweep_all(model, prompts, rows, clean["top_token"], options, bar)
            facts |= {"mapped": False}
    provenance = provenance_of(
        snakemake,
        model,
        watch,
        rows,
        bos_token=prompts.bos_token,
        ablation=ablation.name,
        tokens=settings["sweep.tokens"],
        **facts,
    )
    write_tensors(Path(snakemake.output.tensors), arrays, provenance)


def sweep_drawn(model, prompts, rows, drawn, options, bar):
    """The tensors of the shard's instances, and the errors that its sidecar tells."""
    drawn = drawn.in_prompts(range(rows[0], rows[-1] + 1))
    result = sweep_tokens(
        model,
        prompts.tokens[rows],
        drawn,
        donors=donors_of(prompts, rows, options),
        progress=lambda share: bar.update(100 * share),
        **options,
    )
    arrays = result.arrays()
    arrays["prompt"] += rows[0]  # counted in the sample
    arrays |= {name: getattr(drawn, name).to(torch.uint8) for name in ("top", "random")}
    return arrays, errors_of(result)


def smaller(arrays, dtype):
    """The arrays in the number format that they are stored in, and what that costs."""
    sums = {name: values for name, values in arrays.items() if name.startswith("map.")}
    stored, rounding = rounded(arrays, dtype, keep=EXACT | sums.keys())
    # Of a map, float32 is enough: an interval needs a few digits, and other shards are added in float64.
    stored |= {name: values.float() for name, values in sums.items()}
    told = {"scale_rounding": rounding.pop("ablated_scale", 0.0)}  # units of the residual stream
    return stored, {"rounding_error": max(rounding.values(), default=0.0), **told}


def sweep_all(model, prompts, rows, top_token, options, bar):
    """Each prompt's and head's sums over all tokens, and the errors that the sidecar tells; a few prompts
    at a time, because results of every token take much memory."""
    positions = prompts.tokens.shape[1] - 1
    heads = list(np.ndindex(*top_token.shape[:2]))
    top = draw_tokens(
        top_token,
        positions=positions,
        prompts=len(prompts.tokens),
        tokens_per_head=None,
        random_tokens_per_head=0,
        first_position=prompts.first_position,
        seed=0,
    )
    parts, errors = [], []
    size = options["batch"] or prompts_at_once(model.device.type)
    for first in range(0, len(rows), size):
        some = rows[first : first + size]
        result = sweep(
            model,
            prompts.tokens[some],
            donors=donors_of(prompts, some, options),
            progress=lambda share, part=len(some) / len(rows): bar.update(100 * share * part),  # noqa: B008
            **options,
        )
        here = top.in_prompts(range(some[0], some[-1] + 1))
        mask = here.mask(heads, prompts=len(some), positions=positions)
        mask = mask.unflatten(-1, tuple(top_token.shape[:2]))
        parts.append(summed(result, mask, first_position=prompts.first_position))
        errors.append(errors_of(result))
    worst = {name: max(each[name] for each in errors) for name in errors[0]}
    return joined(parts), worst


def donors_of(prompts, rows, options):
    """The resample partners of some prompts, if the ablation needs them."""
    needed = DONORS in ABLATIONS[options["ablation"]].needs
    return prompts.tokens[prompts.donors[rows]] if needed else None


def errors_of(result):
    """The largest errors of a sweep, in logits."""
    names = ("conservation_error", "decomposition_error")
    errors = {name: getattr(result, name) for name in names}
    mapped = getattr(result, "repair_map", None)
    return errors if mapped is None else errors | {"map_error": mapped.map_error}


run(snakemake, main)
