"""The model that a rule is about, on the threads that Snakemake gave it."""

from pathlib import Path
from typing import Any

import torch
import transformers

from selfrepair.assets import model_location
from selfrepair.models import Decoder, load_model
from selfrepair.study import wheels_of


def load_rule_model(snakemake: Any) -> Decoder:
    torch.set_num_threads(snakemake.threads)
    transformers.utils.logging.disable_progress_bar()
    config, params = snakemake.config, snakemake.params
    location = model_location(params.model, wheels_of(config), Path(config["cache"]))
    revision = params.model.get("revision")
    return load_model(location, device=config["device"], dtype=params.dtype, revision=revision)
