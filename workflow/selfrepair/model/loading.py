"""Load a language model and check that its heads can be measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from ..errors import InputError, first_line
from ..files.hub import locate_model
from .constants import find_factors, find_logit_constants, logit_error
from .decoder import DTYPES, ERROR_BOUNDS, Decoder
from .direct_effect import conservation_error, targets
from .memory import refuse_weights
from .parts import TransformerBridge, find_parts
from .replay import Replay
from .sizes import Shape, shape_from
from .tokenizer import load_tokenizer


def load_model(
    name: str | Path, *, device: str = "auto", dtype: str = "float32", revision: str | None = None
) -> Decoder:
    """Load a hub name or a local Hugging Face directory and check that its heads can be measured.

    Args:
        name: a hub name, or a directory with config.json, weights and a tokenizer.
        device: "auto" (CUDA if there is one, else CPU) or a torch device.
        dtype: one of float64, float32, bfloat16, float16.
        revision: a hub branch, tag or commit.
    Raises:
        InputError: missing directory, weights or tokenizer; a model that the hub and its cache do not
            give; unknown dtype or device; weights that do not fit into the device's memory; an
            architecture without separable heads.
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
    try:
        bridge = TransformerBridge.boot_transformers(
            str(folder), device=target, dtype=DTYPES[dtype], tokenizer=tokenizer
        )
    except Exception as error:
        reason = first_line(error)
        raise InputError(f"model {name}: cannot be loaded ({reason})") from error
    for parameter in bridge.parameters():
        parameter.requires_grad_(False)
    bridge.eval()
    decoder = decoder_from_bridge(bridge, name=str(name), tokenizer=tokenizer)
    decoder.commit = commit
    return decoder


def _stated_shape(folder: Path) -> Shape | None:
    """The shape in a model's config; None if it cannot be read, of which loading tells more."""
    try:
        return shape_from(AutoConfig.from_pretrained(folder).to_dict())
    except (OSError, ValueError):
        return None


def decoder_from_bridge(
    bridge: TransformerBridge, *, name: str, tokenizer: Any = None, like: Decoder | None = None
) -> Decoder:
    """The decoder behind a booted bridge, checked on a few random tokens (raises InputError).

    like: as for `find_parts`; then nothing is checked.
    """
    decoder = find_parts(bridge, name=name, tokenizer=tokenizer, like=like)
    if like is None:
        _probe(decoder)
    return decoder


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


@torch.no_grad()
def _probe(decoder: Decoder) -> None:
    """Run a few random tokens: learn how each layer replays, refuse a model that does not add up.

    Whatever scales, caps or norms an architecture adds beyond docs/method.md section 1 shows up here.
    """
    length = min(9, decoder.context_length + 1)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, decoder.vocabulary, (1, length), generator=generator)
    tokens = tokens.to(decoder.device)
    logits = decoder.network(tokens[:, :-1]).logits
    replay = Replay(decoder)
    clean = replay.record(tokens[:, :-1])
    find_logit_constants(decoder, clean.residual[-1], logits)
    find_factors(decoder, clean)
    every = decoder.to_logits(clean.residual[-1])
    own = every.gather(-1, tokens[:, 1:, None])[..., 0]
    bound = 0.02 * ERROR_BOUNDS[decoder.dtype_name] * max(50.0, float(every.abs().max()))
    errors = (
        logit_error(decoder, clean.residual[-1], logits),
        conservation_error(decoder, clean, targets(decoder, tokens[:, 1:]), own),
    )
    error = float(torch.tensor(errors).max())  # NaN if either is
    what = "the direct effects of its components do not add up to its logits"
    for index, layer in enumerate(decoder.layers):
        if not error <= bound:
            break
        if replay.replay_error(clean, index) > bound:
            layer.override_at = layer.output_projection
            error = replay.replay_error(clean, index)
            what = f"layer {index} cannot be replayed from its recorded input"
        layer.parallel = not replay.mlp_reads_attention(clean, index)
    if not error <= bound:
        raise InputError(
            f"model {decoder.name} ({decoder.architecture}): {what} (off by {error:.3g}, allowed "
            f"{bound:.3g}); its blocks or logits do something the method does not define"
        )
