"""Where the parts of a language model are.

`TransformerBridge` tells, for every architecture it supports, which submodule is the attention of a
layer, its output projection, its MLP, the final norm and the unembedding. The replay itself runs the
plain Hugging Face modules behind the bridge (fused attention, no hook points), on the same weights.
"""

from __future__ import annotations

import copy
import logging
import warnings
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from .decoder import Decoder, Layer, Neurons
from .norms import Write, norm_of
from .packed import fused_norm, packed, packed_mlp

# Both say at import what a study cannot change: which optional back ends are missing.
warnings.filterwarnings("ignore", module="transformer_lens")
logging.getLogger("transformers").setLevel(logging.ERROR)

from transformer_lens.model_bridge import TransformerBridge  # noqa: E402
from transformer_lens.model_bridge.generalized_components.base import (  # noqa: E402
    GeneralizedComponent,
)
from transformers.pytorch_utils import Conv1D  # noqa: E402


def find_parts(
    bridge: TransformerBridge, *, name: str, tokenizer: Any = None, like: Decoder | None = None
) -> Decoder:
    """The decoder behind a booted bridge; how its layers replay is still to be probed (`loading`).

    like: a decoder of the same architecture that tells what only values can; for a bridge on the meta
    device, which has none.
    Raises:
        InputError: an architecture that the method does not cover, or whose parts are not where they
            should be.
    """
    _refuse_unmeasurable(bridge, name)
    network = _plain_network(bridge)
    blocks = network.get_submodule(_blocks_path(bridge))
    head = network.get_output_embeddings()
    norm = network.get_submodule(bridge.ln_final.name)
    known = like.layers[0] if like else None
    layers = [_layer(bridge, index, block, name, known) for index, block in enumerate(blocks)]
    if known is not None:
        for layer in layers:
            layer.parallel = known.parallel
            if known.override_at is known.output_projection:
                layer.override_at = layer.output_projection
    return Decoder(
        name=name,
        bridge=bridge,
        network=network,
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
        architecture=(network.config.architectures or [type(network).__name__])[0],
        logit_scale=like.logit_scale if like else 1.0,
        logit_softcap=like.logit_softcap if like else None,
    )


def _refuse_unmeasurable(bridge: TransformerBridge, name: str) -> None:
    """Refuse, by what the bridge says of its blocks, what the method does not define."""
    kind = type(bridge.original_model).__name__
    if not hasattr(bridge, "ln_final") or not hasattr(bridge, "unembed"):
        raise InputError(f"model {name} ({kind}): no final norm and unembedding; use a decoder LM")
    for index, block in enumerate(bridge.blocks):
        parts = block.submodules
        attention = parts.get("attn")
        if attention is None or not {"o", "v"} <= set(attention.submodules) or "mlp" not in parts:
            raise InputError(
                f"model {name} ({kind}): layer {index} has no separable attention heads and MLP; "
                "use a transformer whose attention has value and output projections"
            )


def _plain_network(bridge: TransformerBridge) -> Any:
    """The Hugging Face model without the bridge's wrappers, sharing every parameter with it."""
    original: Any = bridge.original_model
    config = copy.copy(original.config)
    config.output_attentions = False
    config.use_cache = False
    config._attn_implementation = "sdpa" if original._supports_sdpa else "eager"
    head = original.get_output_embeddings()
    network = _without_bridges(original, original.config, config).eval()
    network.set_output_embeddings(_unbridged(head))  # used rarely, too large to keep twice
    return network


def _without_bridges(module: nn.Module, old_config: Any, new_config: Any) -> Any:
    while isinstance(module, GeneralizedComponent):
        inner = module.original_component
        assert inner is not None, f"{module} wraps nothing"
        module = inner
    if isinstance(module, (nn.Linear, Conv1D)):
        return packed(module)
    twin = copy.copy(module)
    state = twin.__dict__
    for key, value in state.items():
        if key.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called")):
            state[key] = type(value)()
    if state.get("config") is old_config:
        state["config"] = new_config
    state["_modules"] = {
        key: None if child is None else _without_bridges(child, old_config, new_config)
        for key, child in module._modules.items()
    }
    return fused_norm(packed_mlp(twin))


def _blocks_path(bridge: TransformerBridge) -> str:
    mapping: Any = bridge.adapter.component_mapping
    return str(mapping["blocks"].name)


def _layer(
    bridge: TransformerBridge, index: int, block: nn.Module, name: str, like: Layer | None
) -> Layer:
    parts = bridge.blocks[index]
    attention = block.get_submodule(parts.attn.name)
    projection = attention.get_submodule(parts.attn.o.name)
    mlp = block.get_submodule(parts.mlp.name or parts.mlp.out.name)
    w_o, b_o = _linear(_unbridged(parts.attn.o), name)
    n_heads = int(bridge.cfg.n_heads)
    if w_o.shape[0] % n_heads:
        raise InputError(
            f"model {name}: layer {index} writes from {w_o.shape[0]} dimensions, "
            f"which {n_heads} heads cannot share evenly"
        )
    w_o = w_o.reshape(n_heads, -1, w_o.shape[1])
    return Layer(
        block=block,
        output_projection=projection,
        mlp=mlp,
        w_o=w_o,
        b_o=b_o,
        value_bias=_value_bias(parts, w_o, name),
        override_at=attention,
        neurons=_neurons(parts.mlp, mlp),
        attention_write=_write(
            parts, "ln1_post", block, w_o, name, like.attention_write if like else None
        ),
        mlp_write=_write(parts, "ln2_post", block, w_o, name, like.mlp_write if like else None),
    )


def _write(
    parts: Any, key: str, block: nn.Module, values: Tensor, name: str, like: Write | None
) -> Write:
    """How a sublayer's output enters the stream: through its post-norm, if the bridge names one."""
    if key not in parts.submodules:
        return Write() if like is None else Write(factor=like.factor)
    what = f"model {name}: the norm of a sublayer's output"
    norm = norm_of(
        block.get_submodule(parts.submodules[key].name),
        values=values,
        what=what,
        like=None if like is None else like.norm,
    )
    if norm.centred or bool(like is None and norm.bias.any()):
        raise InputError(f"{what} is no RMSNorm, for which a head's direct effect is not defined")
    return Write(norm)


def _neurons(bridged_mlp: Any, mlp: nn.Module) -> Neurons | None:
    out = bridged_mlp.submodules.get("out")
    if out is None:  # a mixture of experts, say
        return None
    try:
        weight, bias = _linear(_unbridged(bridged_mlp.out), "")
    except InputError:
        return None
    return Neurons(mlp.get_submodule(out.name) if bridged_mlp.name else mlp, weight, bias)


def _linear(module: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    """Weight [in, out] and bias [out] of a linear map."""
    if isinstance(module, nn.Linear):
        weight = module.weight.detach().T
    elif isinstance(module, Conv1D):
        weight = module.weight.detach()
    else:
        raise InputError(
            f"model {name}: its attention output is a {type(module).__name__}, not a linear map"
        )
    return weight, _or_zeros(module.bias, weight, weight.shape[1])


def _or_zeros(bias: Tensor | None, like: Tensor, size: int) -> Tensor:
    return like.new_zeros(size) if bias is None else bias.detach()


def _value_bias(parts: Any, w_o: Tensor, name: str) -> Float[Tensor, "head d_head"]:
    """The constant part of z: the value projection of the norm's bias plus its own bias."""
    weight, bias = _linear(_unbridged(parts.attn.v), name)
    norm = _unbridged(parts.submodules["ln1"]) if "ln1" in parts.submodules else None
    norm_bias = _or_zeros(getattr(norm, "bias", None), weight, weight.shape[0])
    constant = (norm_bias @ weight + bias).reshape(-1, w_o.shape[1])
    if w_o.shape[0] % constant.shape[0]:
        raise InputError(
            f"model {name}: {constant.shape[0]} value heads cannot serve {w_o.shape[0]} heads"
        )
    return constant.repeat_interleave(w_o.shape[0] // constant.shape[0], dim=0)


def _unbridged(module: nn.Module) -> nn.Module:
    while isinstance(module, GeneralizedComponent):
        module = module.original_component  # type: ignore[assignment]
    return module
