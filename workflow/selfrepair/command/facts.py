"""What a model is, as far as its config tells: sizes, norms, blocks, biases."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from ..model.assembly import decoder_of
from ..model.decoder import Decoder
from ..model.parts import ModelParts
from ..model.sizes import Shape


@dataclass(frozen=True)
class Facts:
    """What a model is. shape: its sizes; parameters: of all of it, counted; norm: LayerNorm or RMSNorm;
    blocks: sequential or parallel; post_norms: whether blocks normalise what a sublayer gives; biases:
    what has any; neurons: whether the experiments on neurons can be run; context_length: positions."""

    architecture: str
    shape: Shape
    parameters: int
    norm: str
    blocks: str
    post_norms: bool
    biases: tuple[str, ...]
    neurons: bool
    context_length: int


def facts_of(
    network: nn.Module, parts: ModelParts, shape: Shape, short: Decoder, *, name: str
) -> Facts:
    """What a model is.

    Args:
        network: the model without values (`empty_network`); parts: its `parts_of`; shape: its `shape_of`.
        short: its `short_decoder`, which has been probed.
    Raises:
        InputError: its layers are not alike.
    """
    decoder_of(network, parts, name=name, like=short)  # refuses layers that are not alike
    parallel = all(layer.parallel for layer in short.layers)
    return Facts(
        architecture=parts.architecture,
        shape=replace(shape, parallel=parallel),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        norm="LayerNorm" if short.final_norm.centred else "RMSNorm",
        blocks="parallel" if parallel else "sequential",
        post_norms=short.has_post_norms,
        biases=_biases(network, parts),
        neurons=all(layer.neurons is not None for layer in short.layers),
        context_length=parts.context_length,
    )


def shape_of(network: Any, parts: ModelParts) -> Shape:
    """The sizes of a model from its last layer's modules, its blocks taken for sequential. Of a mixture of experts
    d_mlp counts all of them."""
    layer = parts.layers[-1]
    unembedding = network.get_submodule(parts.unembedding).weight
    vocabulary, d_model = unembedding.shape
    written = _matrix_size(network.get_submodule(layer.output_projection))
    mlp = _matrix_size(network.get_submodule(layer.mlp))
    d_mlp, gated = mlp // (2 * d_model), False
    if layer.mlp_out is not None:
        d_mlp = _matrix_size(network.get_submodule(layer.mlp_out)) // d_model
        gated = mlp > 2.5 * d_mlp * d_model
    return Shape(
        layers=len(parts.layers),
        heads=parts.n_heads,
        d_model=d_model,
        d_mlp=d_mlp,
        vocabulary=vocabulary,
        kv_heads=parts.n_key_value_heads,
        d_head=written // d_model // parts.n_heads,
        gated=gated,
        tied=network.get_input_embeddings().weight is unembedding,
    )


def _matrix_size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim > 1)


def _biases(network: Any, parts: ModelParts) -> tuple[str, ...]:
    """Which parts of the last layer have biases: attention, MLP, norms (all others)."""
    layer = parts.layers[-1]
    named = {layer.attention: "attention", layer.output_projection: "attention", layer.mlp: "MLP"}
    found = set()
    for name, _ in network.get_submodule(layer.block).named_parameters(prefix=layer.block):
        if name.endswith("bias"):
            inside = (part for prefix, part in named.items() if name.startswith(f"{prefix}."))
            found.add(next(inside, "norms"))
    return tuple(part for part in ("attention", "MLP", "norms") if part in found)
