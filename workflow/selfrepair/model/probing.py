"""Run a few random tokens through a loaded model: what only values can tell, and whether all adds up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from .constants import find_factors, find_logit_constants, logit_error
from .decoder import Decoder
from .direct_effect import conservation_error, error_bound, targets
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
    clean = _recorded(replay, tokens[:, :-1])
    _check_recording(decoder, clean)
    clean = _find_mlp_outputs(replay, tokens[:, :-1])
    find_logit_constants(decoder, clean.residual[-1], logits)
    find_factors(decoder, clean)
    for index, layer in enumerate(decoder.layers):
        layer.value_bias = _value_bias(replay, index)
    before_cap = decoder.to_logits(clean.residual[-1])
    bound = 0.02 * error_bound(decoder.dtype_name) * max(50.0, float(before_cap.abs().max()))
    own = before_cap.gather(-1, tokens[:, 1:, None])[..., 0]
    error = logit_error(decoder, clean.residual[-1], logits)
    what = "its logits are not its unembedding of what its final norm gives"
    if error <= bound:
        error = conservation_error(decoder, clean, targets(decoder, tokens[:, 1:]), own)
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


def _recorded(replay: Replay, tokens: Tensor) -> Recording:
    """A recording; if blocks turn out to change in place what is recorded, the decoder is told so (Falcon
    adds the attention's output to the MLP's)."""
    decoder = replay.decoder
    as_given = replay.record(tokens)
    decoder.adds_in_place = True
    copied = replay.record(tokens)
    decoder.adds_in_place = any(
        not torch.equal(*pair)
        for kind in ("residual", "attention_out", "mlp_out")
        for pair in zip(getattr(as_given, kind), getattr(copied, kind), strict=True)
    )
    return copied


def _find_mlp_outputs(replay: Replay, tokens: Tensor) -> Recording:
    """Find what each MLP writes, where its module gives something else than its last linear map.

    BLOOM's module has already added the residual stream: there the last map's output is what is written.
    Where it is not (it is scaled, say), no neuron's write is known.
    """
    layers = replay.decoder.layers
    last_outputs: dict[int, Tensor] = {}
    with ExitStack() as hooks:
        for index, layer in enumerate(layers):
            if layer.neurons is not None:

                def keep(_: nn.Module, __: object, output: Tensor, index: int = index) -> None:
                    last_outputs[index] = output.clone()

                handle = layer.neurons.projection.register_forward_hook(keep)
                hooks.callback(handle.remove)
        clean = replay.record(tokens)
    for index, last in last_outputs.items():
        layer, given = layers[index], clean.mlp_out[index]
        last = last.reshape(given.shape)
        if torch.equal(last, given):
            continue
        assert layer.neurons is not None
        added = clean.residual[index + 1] - clean.residual[index] - clean.attention_out[index]
        if float((added - last).abs().max()) < 0.01 * float((added - given).abs().max()):
            layer.mlp = layer.neurons.projection
            clean.mlp_out[index] = last
        else:
            layer.neurons = None
    return clean


def _check_recording(decoder: Decoder, clean: Recording) -> None:
    """Refuse a model whose layers do not each run once on one stream that the final norm reads
    (InputError)."""
    layers, why = decoder.n_layers, None
    parts = (clean.z, clean.attention_out, clean.mlp_out)
    if len(clean.residual) == layers and all(len(part) == layers for part in parts):
        why = "its final norm does not read what its last layer gives"
    elif len(clean.residual) != layers + 1 or any(len(part) != layers for part in parts):
        why = f"its {layers} layers do not each run once per pass"
    elif any(stream.shape != clean.attention_out[0].shape for stream in clean.residual):
        why = "its layers read more than one residual stream"
    if why:
        raise InputError(
            f"model {decoder.name} ({decoder.architecture}): {why}; use a model whose layers add to one "
            "residual stream, one after the other"
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
