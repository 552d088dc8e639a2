"""Load a language model and check that its heads can be measured."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ..errors import InputError, first_line
from ..files.hub import locate_model
from .assembly import decoder_of
from .decoder import DTYPES, Decoder
from .memory import is_out_of_memory, refuse_weights
from .parts import ModelParts
from .probing import probe
from .sizes import Shape, shape_from
from .tokenizer import load_tokenizer

logging.getLogger("transformers").setLevel(logging.ERROR)


def load_model(
    name: str | Path,
    *,
    device: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
    parts: ModelParts | None = None,
) -> Decoder:
    """Load a hub name or a local Hugging Face directory and check that its heads can be measured.

    Args:
        name: a hub name, or a directory with config.json, weights and a tokenizer.
        device: "auto" (CUDA if there is one, else CPU) or a torch device.
        dtype: one of float64, float32, bfloat16, float16.
        revision: a hub branch, tag or commit.
        parts: what `find_parts` found for it; by default it is asked, which takes about ten seconds.
    Raises:
        InputError: missing directory, weights or tokenizer; a model that the hub and its cache do not
            give; unknown dtype or device; weights that do not fit into the device's memory; parts of
            another model; an architecture that the method does not cover, or that torch cannot run in
            this dtype.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype: {dtype!r} is not one of {', '.join(DTYPES)}")
    target = _device(device)
    # Before the weights are fetched: do they fit?
    folder, commit = locate_model(str(name), revision=revision, weights=False)
    shape = _stated_shape(folder)
    if shape is not None:
        refuse_weights(shape, str(name), dtype=dtype, device=target)
    folder, commit = locate_model(str(name), revision=commit)
    tokenizer = load_tokenizer(str(name), revision=commit)
    if parts is None:
        from .finding import find_parts  # imports TransformerLens, which takes most of the time

        parts = find_parts(name, revision=commit)
    network = _plain_network(folder, name=str(name), dtype=DTYPES[dtype], device=target)
    decoder = decoder_of(network, parts, name=str(name), tokenizer=tokenizer)
    decoder.folder, decoder.commit = folder, commit
    try:
        probe(decoder)
    except (RuntimeError, NotImplementedError) as error:  # a product that torch lacks in this dtype
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"model {name} ({parts.architecture}): cannot run in {dtype} on {target} "
            f"({first_line(error)}); use another dtype, such as float32"
        ) from error
    return decoder


def _stated_shape(folder: Path) -> Shape | None:
    """The shape in a model's config; None if it cannot be read, of which loading tells more."""
    try:
        return shape_from(AutoConfig.from_pretrained(folder).to_dict())
    except (OSError, ValueError):
        return None


def _plain_network(folder: Path, *, name: str, dtype: torch.dtype, device: torch.device) -> Any:
    """The Hugging Face model, all of its parameters in one dtype, ready to run without gradients."""
    try:
        network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    except Exception as error:
        raise InputError(f"model {name}: cannot be loaded ({first_line(error)})") from error
    network = network.to(device).eval()
    network.config.use_cache = False
    for parameter in network.parameters():
        parameter.requires_grad_(False)
        if parameter.is_floating_point():  # some models keep a few in float32
            parameter.data = parameter.data.to(dtype)
    return network


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise InputError(
            f"device: {device!r} is not a torch device; use auto, cpu or cuda"
        ) from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"device: {device!r} was asked for, but torch sees no CUDA device; use auto"
        )
    return target
