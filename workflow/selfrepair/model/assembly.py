"""Put a decoder together: the plain Hugging Face model, and its parts looked up by name."""

from __future__ import annotations

import copy
from dataclasses import astuple
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import InputError
from .decoder import Decoder, FinalNorm, Layer, Neurons
from .packed import PackedLinear, pack
from .parts import LayerParts, ModelParts


def decoder_of(
    network: Any,
    parts: ModelParts,
    *,
    name: str,
    tokenizer: Any = None,
    like: Decoder | None = None,
) -> Decoder:
    """The decoder that a plain model is; how its layers replay is still to be probed (`probing`).

    The model's linear layers are packed in place where that is faster (`packed`).
    like: a decoder of the same architecture that tells what only values can; for a model on the meta
    device, which has none.
    Raises:
        InputError: the parts are not those of this model, or its heads cannot be told apart.
    """
    _refuse_other_parts(network, parts, name)
    _refuse_uncovered(network, parts, name)
    pack(network, mlps={layer.mlp for layer in parts.layers}, but={parts.unembedding})
    head: Any = network.get_submodule(parts.unembedding)
    norm = network.get_submodule(parts.final_norm)
    layers = [_layer(network, layer, parts, name) for layer in parts.layers]
    if len({layer.w_o.shape for layer in layers}) > 1:
        raise InputError(
            f"model {name} ({parts.architecture}): its layers have heads of different number or size; "
            "use a model whose layers are alike"
        )
    if like is not None:
        known = like.layers[0]
        for layer in layers:
            layer.parallel = known.parallel
            if known.override_at is known.output_projection:
                layer.override_at = layer.output_projection
    return Decoder(
        name=name,
        network=network,
        parts=parts,
        layers=layers,
        final_norm=_final_norm(norm, name, like.final_norm if like else None),
        unembedding=head.weight.detach(),
        unembedding_bias=_or_zeros(getattr(head, "bias", None), head.weight, head.weight.shape[0]),
        tokenizer=tokenizer,
    )


def _refuse_uncovered(network: Any, parts: ModelParts, name: str) -> None:
    """Refuse what the method does not define (docs/method.md section 3)."""
    if any(layer.attention_post_norm or layer.mlp_post_norm for layer in parts.layers):
        raise InputError(
            f"model {name} ({parts.architecture}): its blocks normalise a sublayer's output before "
            "adding it, so a head's direct effect is not defined; use a model that normalises inputs only"
        )
    cap = getattr(network.config, "final_logit_softcapping", None)
    if cap:
        raise InputError(
            f"model {name} ({parts.architecture}): logits are soft-capped at {cap}, not linear; use a "
            "model whose logits are linear in the final norm's output"
        )


def _refuse_other_parts(network: nn.Module, parts: ModelParts, name: str) -> None:
    """Refuse parts that the model does not have."""
    for path in [parts.final_norm, parts.unembedding, *chain(*map(astuple, parts.layers))]:
        try:
            network.get_submodule(path or "")
        except AttributeError as error:
            raise InputError(
                f"model {name}: it has no {path}; its parts were found on another model, or with "
                "another version of transformers: find them again"
            ) from error


def _layer(network: nn.Module, names: LayerParts, parts: ModelParts, name: str) -> Layer:
    projection = network.get_submodule(names.output_projection)
    w_o, b_o = _linear(projection, name)
    if w_o.shape[0] % parts.n_heads:
        raise InputError(
            f"model {name}: {names.block} writes from {w_o.shape[0]} dimensions, which "
            f"{parts.n_heads} heads cannot share evenly; use a model whose layers are alike"
        )
    w_o = w_o.reshape(parts.n_heads, -1, w_o.shape[1])
    neurons = None
    if names.mlp_out is not None:
        last = network.get_submodule(names.mlp_out)
        neurons = Neurons(last, *_linear(last, name))
    return Layer(
        block=network.get_submodule(names.block),
        output_projection=projection,
        mlp=network.get_submodule(names.mlp),
        w_o=w_o,
        b_o=b_o,
        value_bias=w_o.new_zeros(w_o.shape[:2]),
        override_at=network.get_submodule(names.attention),
        neurons=neurons,
    )


def _linear(module: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    """Weight [in, out] and bias [out] of a linear map."""
    if isinstance(module, (nn.Linear, PackedLinear)):
        weight = module.weight.detach().T
    elif isinstance(module, Conv1D):
        weight = module.weight.detach()
    else:
        raise InputError(
            f"model {name}: its attention output is a {type(module).__name__}, not a linear map; use a "
            "model whose attention heads write through one"
        )
    return weight, _or_zeros(module.bias, weight, weight.shape[1])


def _or_zeros(bias: Tensor | None, like: Tensor, size: int) -> Tensor:
    return like.new_zeros(size) if bias is None else bias.detach()


def _final_norm(module: Any, name: str, like: FinalNorm | None = None) -> FinalNorm:
    """Tell LayerNorm from RMSNorm, and gain w from 1 + w, by what the module computes."""
    weight = getattr(module, "weight", None)
    eps = next(
        (float(getattr(module, k)) for k in ("eps", "variance_epsilon") if hasattr(module, k)), 0.0
    )
    size = weight.shape[0] if weight is not None else module.normalized_shape[0]
    values = weight if weight is not None else next(module.parameters(), torch.zeros(1))
    gain = weight.detach() if weight is not None else torch.ones(size).to(values)
    bias = _or_zeros(getattr(module, "bias", None), values, size)
    if like is not None:
        return FinalNorm(module, gain, bias, eps, like.centred)
    generator = torch.Generator().manual_seed(0)
    probe = (torch.randn(8, size, generator=generator) + 0.5).to(values.device)
    expected = copy.deepcopy(module).float()(probe)
    for centred in (True, False):
        for shift in (0, 1):
            guess = FinalNorm(module, gain.float() + shift, bias.float(), eps, centred)
            if torch.allclose(guess.apply(probe), expected, rtol=1e-4, atol=1e-4):
                return FinalNorm(module, gain + shift, bias, eps, centred)
    raise InputError(f"model {name}: its final norm is neither a LayerNorm nor an RMSNorm")
