"""Run a few random tokens through a loaded model: what only values can tell, and whether all adds up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from .constants import find_factors, find_logit_constants, logit_error
from .decoder import ERROR_BOUNDS, Decoder
from .direct_effect import conservation_error, targets
from .replay import Recording, Replay


@torch.no_grad()
def probe(decoder: Decoder) -> None:
    """Learn how each layer replays, what is constant in its z, and what the model multiplies by; refuse a
    model that does not add up.

    Whatever an architecture adds beyond docs/method.md sections 1 and 3 shows up here.
    Raises:
        InputError: direct effects do not add up to logits, or a layer cannot be replayed.
    """
    length = min(9, decoder.context_length + 1)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, decoder.vocabulary, (2, length), generator=generator)
    tokens = tokens.to(decoder.device)
    logits = decoder.network(tokens[:, :-1], use_cache=False).logits
    replay = Replay(decoder)
    clean = replay.record(tokens[:, :-1])
    _check_recording(decoder, clean)
    find_logit_constants(decoder, clean.residual[-1], logits)
    find_factors(decoder, clean)
    for index, layer in enumerate(decoder.layers):
        layer.value_bias = _value_bias(replay, index)
    before_cap = decoder.to_logits(clean.residual[-1])
    bound = 0.02 * ERROR_BOUNDS[decoder.dtype_name] * max(50.0, float(before_cap.abs().max()))
    own = before_cap.gather(-1, tokens[:, 1:, None])[..., 0]
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
            f"{bound:.3g}); its blocks or logits do something the method does not define; use another model"
        )


def _check_recording(decoder: Decoder, clean: Recording) -> None:
    """Refuse a model that runs its layers more or less than once, in whatever order (InputError)."""
    parts = (clean.residual[:-1], clean.z, clean.attention_out, clean.mlp_out)
    if any(len(part) != decoder.n_layers for part in parts):
        raise InputError(
            f"model {decoder.name} ({decoder.architecture}): its {decoder.n_layers} layers do not each "
            "run once per pass; use a model whose layers do"
        )


def _value_bias(replay: Replay, index: int) -> Float[Tensor, "head d_head"]:
    """The constant part of z: what heads read at a single position of a zero residual stream.

    The norm makes its bias of zeros, the value projection adds its own, and attention to the only
    position there is passes it on unchanged (docs/method.md section 1: folded value bias).
    """
    decoder = replay.decoder
    nothing = decoder.unembedding.new_zeros(1, 1, decoder.d_model)
    with _without_sinks(decoder.layers[index].block):
        return replay.head_outputs(index, nothing)[0, 0].clone()


@contextmanager
def _without_sinks(block: nn.Module) -> Iterator[None]:
    """Attention sinks take a share of the attention to nothing; in the block none do."""
    holders = [m for m in block.modules() if isinstance(getattr(m, "sinks", None), nn.Parameter)]
    own = [module._parameters["sinks"] for module in holders]
    try:
        for module, sinks in zip(holders, own, strict=True):
            assert sinks is not None
            module._parameters["sinks"] = nn.Parameter(
                torch.full_like(sinks, -torch.inf), requires_grad=False
            )
        yield
    finally:
        for module, sinks in zip(holders, own, strict=True):
            module._parameters["sinks"] = sinks
