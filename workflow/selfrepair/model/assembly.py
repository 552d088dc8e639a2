"""Put a decoder together: the plain Hugging Face model, and its parts looked up by name."""

from __future__ import annotations

from dataclasses import astuple
from itertools import chain
from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import InputError
from .decoder import Decoder, Layer, Neurons
from .norms import Write, norm_of
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
    pack(network, mlps={layer.mlp for layer in parts.layers}, but={parts.unembedding})
    head: Any = network.get_submodule(parts.unembedding)
    norm = network.get_submodule(parts.final_norm)
    known = like.layers[0] if like else None
    layers = [_layer(network, layer, parts, name, known) for layer in parts.layers]
    if len({layer.w_o.shape for layer in layers}) > 1:
        raise InputError(
            f"model {name} ({parts.architecture}): its layers have heads of different number or size; "
            "use a model whose layers are alike"
        )
    if known is not None:
        for layer in layers:
            layer.parallel = known.parallel
            if known.override_at is known.output_projection:
                layer.override_at = layer.output_projection
    return Decoder(
        name=name,
        network=network,
        parts=parts,
        layers=layers,
        final_norm=norm_of(
            norm,
            values=head.weight,
            what=f"model {name}: its final norm",
            like=like.final_norm if like else None,
        ),
        unembedding=head.weight.detach(),
        unembedding_bias=_or_zeros(getattr(head, "bias", None), head.weight, head.weight.shape[0]),
        tokenizer=tokenizer,
        logit_scale=like.logit_scale if like else 1.0,
        logit_softcap=like.logit_softcap if like else None,
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


def _layer(
    network: nn.Module, names: LayerParts, parts: ModelParts, name: str, like: Layer | None
) -> Layer:
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
        attention_write=_write(
            network, names.attention_post_norm, w_o, name, like.attention_write if like else None
        ),
        mlp_write=_write(network, names.mlp_post_norm, w_o, name, like.mlp_write if like else None),
    )


def _write(
    network: nn.Module, post_norm: str | None, values: Tensor, name: str, like: Write | None
) -> Write:
    """How a sublayer's output enters the stream: through its post-norm, if it has one. Whether it is
    multiplied by a constant is still to be probed (`constants`)."""
    if post_norm is None:
        return Write() if like is None else Write(factor=like.factor)
    what = f"model {name}: {post_norm}"
    norm = norm_of(
        network.get_submodule(post_norm),
        values=values,
        what=what,
        like=None if like is None else like.norm,
    )
    if norm.centred or bool(like is None and norm.bias.any()):
        raise InputError(
            f"{what} normalises a sublayer's output and is no RMSNorm, so a head's direct effect is not "
            "defined; use a model whose post-norms are"
        )
    return Write(norm)


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
