"""The model that a rule is about, on the threads that Snakemake gave it."""

from pathlib import Path
from typing import Any

import torch
import transformers

from selfrepair.files.wheels import wheels_of
from selfrepair.model.decoder import Decoder
from selfrepair.model.loading import load_model
from selfrepair.model.memory import shape_of_decoder
from selfrepair.model.sizes import check_shape
from selfrepair.model.weights import model_location


def load_rule_model(
    snakemake: Any, *, dtype: str | None = None, tf32: bool | None = None
) -> Decoder:
    """dtype, tf32: instead of the study's."""
    torch.set_num_threads(snakemake.threads)
    transformers.utils.logging.disable_progress_bar()
    config, params = snakemake.config, snakemake.params
    fewer_bits = params.tf32 if tf32 is None else tf32
    torch.set_float32_matmul_precision("high" if fewer_bits else "highest")
    location = model_location(params.model, wheels_of(config["wheels"]), Path(config["cache"]))
    revision = params.model.get("revision")
    model = load_model(
        location, device=config["device"], dtype=dtype or params.dtype, revision=revision
    )
    key = snakemake.wildcards.model
    check_shape(config["models"][key].get("shape", {}), shape_of_decoder(model), key=key)
    return model
