"""Sweep one ablation over every head, on one shard of the prompts: on drawn tokens, or on all."""

from pathlib import Path

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
from selfrepair.measure.drawing import DrawnTokens
from selfrepair.measure.prompt_sums import summed
from selfrepair.measure.sweep import sweep
from selfrepair.measure.token_sweep import sweep_tokens
from selfrepair.text.prompts import read_prompts

# Of drawn tokens, kept as they are whatever the number format of the others.
EXACT = {"prompt", "position", "layer", "head", "top", "random", "direct_effect", "scale"}


def main(snakemake):
    watch = Stopwatch()
    settings, rows = snakemake.params.settings, list(snakemake.params.prompts)
    ablation = ABLATIONS[snakemake.params.ablation]
    prompts = read_prompts(Path(snakemake.input.prompts))
    # A sweep of drawn tokens knows from them what is top; the means are of the whole sample in any case.
    every = settings["sweep.tokens"] == "all"
    wanted = {"mean_z": MEANS in ablation.needs, "top_token": every}
    clean, _ = read_tensors(Path(snakemake.input.clean), [k for k, use in wanted.items() if use])
    model = load_rule_model(snakemake)
    with progress_bar(snakemake, ablation.name) as bar:
        options = {
            "ablation": ablation.name,
            "mean_z": clean.get("mean_z"),
            "chunk": machine_of(snakemake).rows_at_once,
        }
        measure = every_token if every else drawn_tokens
        arrays, facts = measure(snakemake, model, prompts, rows, clean, bar, options)
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


def donors_of(prompts, ablation, rows):
    """The resample partners of some prompts, if the ablation needs them."""
    return prompts.tokens[prompts.donors[rows]] if DONORS in ABLATIONS[ablation].needs else None


def drawn_tokens(snakemake, model, prompts, rows, clean, bar, options):
    """The tensors of the shard's drawn tokens, and what its sidecar says of them."""
    ablation, settings = options["ablation"], snakemake.params.settings
    drawn = DrawnTokens.from_table(pl.read_parquet(snakemake.input.drawn))
    drawn = drawn.in_prompts(range(rows[0], rows[-1] + 1))
    mapped = settings[f"ablations.{ablation}.map"]
    result = sweep_tokens(
        model,
        prompts.tokens[rows],
        drawn,
        donors=donors_of(prompts, ablation, rows),
        mapped=mapped,
        batch=machine_of(snakemake).prompts_at_once,
        progress=lambda share: bar.update(100 * share),
        **options,
    )
    measured = result.arrays()
    places = {name: getattr(drawn, name).to(torch.int32) for name in ("position", "layer", "head")}
    places["prompt"] = (drawn.prompt + rows[0]).to(torch.int32)  # of the sample
    flags = {name: getattr(drawn, name).to(torch.uint8) for name in ("top", "random")}
    arrays = {**measured, **places, **flags}
    # Sums over prompts are of a map, which is small, and exact.
    exact = EXACT | {name for name in arrays if name.startswith("map.")}
    stored, rounding = rounded(arrays, settings["sweep.store"], keep=exact)
    facts = {
        "mapped": mapped,
        "conservation_error": result.conservation_error,
        "decomposition_error": result.decomposition_error,
        "scale_rounding": rounding.pop("ablated_scale", 0.0),  # units of the residual stream
        "rounding_error": max(rounding.values(), default=0.0),
    }
    return stored, facts


def every_token(snakemake, model, prompts, rows, clean, bar, options):
    """Each prompt's and head's sums over all tokens, and what the sidecar says: a few prompts at a time,
    because there are many tokens."""
    tokens, at_once = prompts.tokens, machine_of(snakemake).prompts_at_once
    positions = tokens.shape[1] - 1
    parts, errors = [], {"conservation_error": 0.0, "decomposition_error": 0.0}
    for first in range(0, len(rows), at_once):
        some = rows[first : first + at_once]
        result = sweep(
            model,
            tokens[some],
            donors=donors_of(prompts, options["ablation"], some),
            batch=at_once,
            progress=lambda share, n=len(some): bar.update(100 * share * n / len(rows)),
            **options,
        )
        top = top_of_prompts(clean["top_token"], some, positions)
        parts.append(summed(result, top, first_position=prompts.first_position))
        errors = {name: max(error, getattr(result, name)) for name, error in errors.items()}
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return joined, {"mapped": False, **errors}


def top_of_prompts(top_token, rows, positions):
    """Which tokens of consecutive prompts are a head's top tokens, [prompt, position, layer, head].

    top_token: flat indices [layer, head, top] into the sample.
    """
    n_layers, n_heads, _ = top_token.shape
    start, count = rows[0] * positions, len(rows) * positions
    flat = top_token.long() - start
    inside = (flat >= 0) & (flat < count)
    mask = torch.zeros(n_layers, n_heads, count, dtype=torch.bool)
    layer, head, at = inside.nonzero(as_tuple=True)
    mask[layer, head, flat[layer, head, at]] = True
    return mask.reshape(n_layers, n_heads, len(rows), positions).permute(2, 3, 0, 1)


run(snakemake, main)
