"""The model that a rule is about, on the threads that Snakemake gave it."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers

from common.adapter import warn
from common.model_location import location_of_model
from common.settings import machine_of
from selfrepair.model.decoder import Decoder
from selfrepair.model.loading import load_model
from selfrepair.model.memory import shape_of_decoder
from selfrepair.model.parts import ModelParts, read_parts
from selfrepair.model.sizes import check_shape


def load_rule_model(
    snakemake: Any, *, dtype: str | None = None, tf32: bool | None = None
) -> Decoder:
    """The model of this job in the study's number format, or in the one given.

    Raises:
        InputError: its sizes are not those that the config states.
    """
    torch.set_num_threads(snakemake.threads)
    transformers.utils.logging.disable_progress_bar()
    settings, machine = snakemake.params.settings, machine_of(snakemake)
    fewer_bits = settings["tf32"] if tf32 is None else tf32
    torch.set_float32_matmul_precision("high" if fewer_bits else "highest")
    location, revision = location_of_model(snakemake)
    model = load_model(
        location,
        device=machine.device,
        dtype=dtype or settings["dtype"],
        revision=revision,
        parts=_parts(snakemake),
    )
    check_shape(machine.shape, shape_of_decoder(model), key=snakemake.wildcards.model)
    return model


def _parts(snakemake: Any) -> ModelParts | None:
    """Where the model's parts are, as `find_parts` wrote it; None, to ask again, if it did so with another
    version of transformers, which may name its modules otherwise."""
    path = Path(snakemake.input.parts)
    parts = read_parts(path)
    found, here = parts.versions.get("transformers"), version("transformers")
    if found == here:
        return parts
    warn(snakemake, f"{path}: found with transformers {found}, not {here}: looking again")
    return None
