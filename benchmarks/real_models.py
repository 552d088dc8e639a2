"""How exact measurements of the real models of config/materials.yaml are, on real text.

    .venv/bin/python benchmarks/real_models.py [model ...]

Prints a Markdown table. Conservation and decomposition errors are those of a sweep of some heads of one
layer under resample ablation; the reference is the plain Hugging Face model with hooks, run whole, once
per head and once per component (`selfrepair.testing.hooked_reference`). All in logits. Fetches the models
that are not here yet (2 GB of wheels for all four).
"""

import sys
from dataclasses import dataclass

import polars as pl
import torch
import transformers
from sweep import ROOT, default_study
from torch import Tensor

import selfrepair
from selfrepair.files.wheels import wheels_of
from selfrepair.measure.bos_trial import bos_trial
from selfrepair.measure.sweep_result import PER_HEAD
from selfrepair.model.tokenizer import bos_token_of
from selfrepair.model.weights import model_location
from selfrepair.study.materials import read_materials
from selfrepair.study.schema import read_schema
from selfrepair.testing.hooked_reference import HookedModel, hooked_sweep
from selfrepair.text.documents import sample_documents
from selfrepair.text.windows import cut_prompts

# The reference runs the whole unembedding for every component: few tokens, few heads.
PROMPTS, LENGTH, HEADS = 2, 16, 2
LOSS_PROMPTS, LOSS_LENGTH = 8, 128
DTYPES = ("float32", "bfloat16")


@dataclass
class Row:
    """One line of the table, in logits, after the loss with and without BOS in nats a token."""

    model: str
    dtype: str
    with_bos: float
    without_bos: float
    conservation: float
    decomposition: float
    reference: float


def main() -> None:
    transformers.utils.logging.disable_progress_bar()
    config, _ = default_study()
    schema = read_schema(ROOT / "config/schema.yaml")
    materials = read_materials(ROOT / "config/materials.yaml", schema)
    every = materials["models"]
    asked = sys.argv[1:] or list(every)
    for key in asked:
        if key not in every:
            sys.exit(f"error: {key!r} is not one of {', '.join(every)}")
    wheels = wheels_of(materials["wheels"])
    documents = sample_documents(
        config["text"]["sources"],
        prompts=LOSS_PROMPTS,
        tokens_per_prompt=LOSS_LENGTH,
        seed=config["seed"],
        wheels=wheels_of(config["wheels"]),
        cache=ROOT / config["cache"],
    )
    print(
        "| model | number format | loss with BOS | without | conservation | decomposition | from reference |"
    )
    print("|---|---|---|---|---|---|---|")
    for key in asked:
        where = model_location(every[key], wheels, ROOT / config["cache"], key=key)
        for dtype in DTYPES:
            row = measured(every[key]["title"], where, dtype, documents, config)
            print(
                f"| {row.model} | {row.dtype} | {row.with_bos:.2f} | {row.without_bos:.2f} "
                f"| {row.conservation:.1e} | {row.decomposition:.1e} | {row.reference:.1e} |",
                flush=True,
            )


def measured(title: str, where: str, dtype: str, documents: pl.DataFrame, config: dict) -> Row:
    model = selfrepair.load_model(where, device="cpu", dtype=dtype)
    own = bos_token_of(model.tokenizer, "auto")
    bos = own if own is not None else bos_token_of(model.tokenizer, "always")
    assert bos is not None
    prompts = cut_prompts(
        documents,
        model.tokenizer,
        config["text"]["sources"],
        prompts=LOSS_PROMPTS,
        tokens_per_prompt=LOSS_LENGTH,
        seed=config["seed"],
        bos_token=own,
    )
    whole = torch.tensor(prompts["tokens"].to_list())
    trial = bos_trial(model, whole, had_bos=own is not None, bos_token=bos)
    assert trial is not None
    errors = against_reference(model, whole[:PROMPTS, :LENGTH])
    return Row(title, dtype, trial.with_bos, trial.without_bos, *errors)


def against_reference(model: selfrepair.model.decoder.Decoder, tokens: Tensor) -> tuple[float, ...]:
    """Conservation and decomposition error of a sweep of some heads, and its largest difference from the
    reference in any effect."""
    donors = tokens.roll(1, 0)
    layer = 2 * model.n_layers // 3
    heads = [(layer, head) for head in range(HEADS)]
    fast = selfrepair.sweep(model, tokens, donors=donors, heads=heads)
    slow = hooked_sweep(HookedModel(model), tokens, donors=donors, heads=heads)
    apart = 0.0
    for name in PER_HEAD:
        if name != "ablated_scale":  # in units of the residual stream
            pair = [getattr(r, name)[:, :, layer, :HEADS].double() for r in (fast, slow)]
            apart = max(apart, float((pair[0] - pair[1]).abs().max()))
    return fast.conservation_error, fast.decomposition_error, apart


if __name__ == "__main__":
    main()
