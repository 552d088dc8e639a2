"""Load a decoder-only language model and know where its parts are.

`TransformerBridge` tells, for every architecture it supports, which submodule is the attention of a
layer, its output projection, its MLP, the final norm and the unembedding. The replay itself runs the
plain Hugging Face modules behind the bridge (fused attention, no hook points), on the same weights.
"""

from __future__ import annotations

import copy
import logging
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError, first_line
from ..files.hub import locate_model
from .memory import refuse_weights
from .packed import fused_norm, packed, packed_mlp
from .sizes import Shape, shape_from
from .tokenizer import load_tokenizer

# Both say at import what a study cannot change: which optional back ends are missing.
warnings.filterwarnings("ignore", module="transformer_lens")
logging.getLogger("transformers").setLevel(logging.ERROR)

from transformer_lens.model_bridge import TransformerBridge  # noqa: E402
from transformer_lens.model_bridge.generalized_components.base import (  # noqa: E402
    GeneralizedComponent,
)
from transformers import AutoConfig  # noqa: E402
from transformers.pytorch_utils import Conv1D  # noqa: E402

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

# Largest conservation or decomposition error, in logits, that a run may store.
ERROR_BOUNDS = {"float64": 1e-5, "float32": 1e-3, "bfloat16": 1.0, "float16": 0.25}


@dataclass
class Neurons:
    """The last linear map of an MLP: it reads the post-activations, one per neuron.

    w_out: [neuron, d_model]; b_out: [d_model], which belongs to no neuron (method section 3).
    """

    projection: nn.Module
    w_out: Float[Tensor, "neuron d_model"]
    b_out: Float[Tensor, " d_model"]


@dataclass
class Layer:
    """One decoder layer: the modules a replay watches, and the weights of its attention output.

    w_o: [head, d_head, d_model]; b_o: [d_model]; value_bias: [head, d_head], the constant part of z
    (value bias plus what the preceding norm's bias contributes through W_V; method section 1).
    parallel: the MLP reads the layer's input and does not see the attention's output.
    stub: the module whose output a replay replaces, the attention or else its output projection.
    neurons: the linear map that reads the MLP's neurons, None if its MLP has no such map.
    """

    block: nn.Module
    output_projection: nn.Module
    mlp: nn.Module
    w_o: Float[Tensor, "head d_head d_model"]
    b_o: Float[Tensor, " d_model"]
    value_bias: Float[Tensor, "head d_head"]
    stub: nn.Module
    parallel: bool = False
    neurons: Neurons | None = None


@dataclass
class FinalNorm:
    """The final norm y = gain * (r - [centred] mean(r)) / S + bias, found by its values, not its name.

    gain, bias: [d_model]; S is method section 1's scale.
    """

    module: nn.Module
    gain: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]
    eps: float
    centred: bool

    def scale(self, residual: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """S_k: sqrt(var + eps) of the centred residual, or sqrt(mean square + eps) for RMSNorm."""
        if self.centred:
            residual = residual - residual.mean(-1, keepdim=True)
        return (residual.square().mean(-1) + self.eps).sqrt()

    def apply(self, residual: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        scale = self.scale(residual)[..., None]
        if self.centred:
            residual = residual - residual.mean(-1, keepdim=True)
        return self.gain * residual / scale + self.bias


@dataclass
class Decoder:
    """A language model whose heads can be ablated one by one.

    bridge: the hooked TransformerBridge (the slow reference uses it); network: the plain Hugging Face
    model on the same weights; unembedding: [vocabulary, d_model]; unembedding_bias: [vocabulary];
    commit: what the hub gave, None for a local directory.
    """

    name: str
    bridge: TransformerBridge
    network: Any
    layers: list[Layer]
    final_norm: FinalNorm
    unembedding: Float[Tensor, "vocabulary d_model"]
    unembedding_bias: Float[Tensor, " vocabulary"]
    tokenizer: Any
    architecture: str
    commit: str | None = None
    _caches: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def n_heads(self) -> int:
        return self.layers[0].w_o.shape[0]

    @property
    def d_head(self) -> int:
        return self.layers[0].w_o.shape[1]

    @property
    def d_model(self) -> int:
        return self.layers[0].w_o.shape[2]

    @property
    def vocabulary(self) -> int:
        return self.unembedding.shape[0]

    @property
    def device(self) -> torch.device:
        return self.unembedding.device

    @property
    def dtype(self) -> torch.dtype:
        return self.unembedding.dtype

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def context_length(self) -> int:
        return int(self.bridge.cfg.n_ctx)

    def twin(self) -> Decoder:
        """The same decoder with modules of its own on the same tensors, for another thread.

        Hooks and replaced outputs of one are not seen by the other. The bridge is shared.
        """
        modules = list(self.network.modules())
        held = [*modules, *self.layers, *(layer.neurons for layer in self.layers), self.final_norm]
        tensors = [value for item in held for value in vars(item or ()).values()]
        tensors += [*self.network.parameters(), *self.network.buffers()]
        shared = [self.bridge, self.tokenizer, self.network.config, self._caches]
        shared += [self.unembedding, self.unembedding_bias]
        shared += [value for value in tensors if torch.is_tensor(value)]
        return copy.deepcopy(self, {id(value): value for value in shared})

    def to_logits(self, residual: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch vocab"]:
        """The model's own logits of a final residual, centred over the vocabulary."""
        normed = self.final_norm.module(residual)
        logits = normed @ self.unembedding.T + self.unembedding_bias
        return logits - logits.mean(-1, keepdim=True)


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
            architecture without separable heads, or whose blocks normalise a sublayer's output.
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
    """Find the parts of a booted bridge and check that they add up (raises InputError).

    like: a decoder of the same architecture that tells what only values can; for a bridge on the meta
    device, which has none.
    """
    _refuse_unmeasurable(bridge, name)
    network = _plain_network(bridge)
    hf_config = network.config
    norm_path, blocks_path = bridge.ln_final.name, _blocks_path(bridge)
    blocks = network.get_submodule(blocks_path)
    head = network.get_output_embeddings()
    decoder = Decoder(
        name=name,
        bridge=bridge,
        network=network,
        layers=[_layer(bridge, index, blocks[index], name) for index in range(len(blocks))],
        final_norm=_final_norm(
            network.get_submodule(norm_path), name, like.final_norm if like else None
        ),
        unembedding=head.weight.detach(),
        unembedding_bias=_or_zeros(getattr(head, "bias", None), head.weight, head.weight.shape[0]),
        tokenizer=tokenizer,
        architecture=(hf_config.architectures or [type(network).__name__])[0],
    )
    if like is None:
        _probe(decoder)
    else:
        known = like.layers[0]
        for layer in decoder.layers:
            layer.parallel = known.parallel
            layer.stub = (
                layer.stub if known.stub is not known.output_projection else layer.output_projection
            )
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


def _refuse_unmeasurable(bridge: TransformerBridge, name: str) -> None:
    """Refuse, by what the bridge says of its blocks, what the method does not define."""
    kind = type(bridge.original_model).__name__
    if not hasattr(bridge, "ln_final") or not hasattr(bridge, "unembed"):
        raise InputError(f"model {name} ({kind}): no final norm and unembedding; use a decoder LM")
    for index, block in enumerate(bridge.blocks):
        parts = block.submodules
        if {"ln1_post", "ln2_post"} & set(parts):
            raise InputError(
                f"model {name} ({kind}): its blocks normalise a sublayer's output before adding it, "
                "so a head's direct effect is not defined; use a model that normalises inputs only"
            )
        attention = parts.get("attn")
        if attention is None or not {"o", "v"} <= set(attention.submodules) or "mlp" not in parts:
            raise InputError(
                f"model {name} ({kind}): layer {index} has no separable attention heads and MLP; "
                "use a transformer whose attention has value and output projections"
            )
    cap = getattr(bridge.original_model.config, "final_logit_softcapping", None)
    if cap:
        raise InputError(f"model {name} ({kind}): logits are soft-capped at {cap}, not linear")


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


def _layer(bridge: TransformerBridge, index: int, block: nn.Module, name: str) -> Layer:
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
        stub=attention,
        neurons=_neurons(parts.mlp, mlp),
    )


def _neurons(part: Any, mlp: nn.Module) -> Neurons | None:
    out = part.submodules.get("out")
    if out is None:  # a mixture of experts, say
        return None
    try:
        weight, bias = _linear(_unbridged(part.out), "")
    except InputError:
        return None
    return Neurons(mlp.get_submodule(out.name) if part.name else mlp, weight, bias)


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


@torch.no_grad()
def _probe(decoder: Decoder) -> None:
    """Run a few random tokens: learn how each layer replays, refuse a model that does not add up.

    Whatever scales, caps or norms an architecture adds beyond method section 1 shows up here.
    """
    from .direct_effect import conservation_error, targets  # they need a Decoder to be defined
    from .replay import Replay

    length = min(9, decoder.context_length + 1)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, decoder.vocabulary, (1, length), generator=generator)
    tokens = tokens.to(decoder.device)
    logits = decoder.network(tokens[:, :-1]).logits
    logits = logits - logits.mean(-1, keepdim=True)
    bound = 0.02 * ERROR_BOUNDS[decoder.dtype_name] * max(50.0, float(logits.abs().max()))
    replay = Replay(decoder)
    clean = replay.record(tokens[:, :-1])
    own = logits.gather(-1, tokens[:, 1:, None])[..., 0]
    error = conservation_error(decoder, clean, targets(decoder, tokens[:, 1:]), own)
    what = "the direct effects of its components do not add up to its logits"
    for index, layer in enumerate(decoder.layers):
        if not error <= bound:
            break
        if replay.replay_error(clean, index) > bound:
            layer.stub = layer.output_projection
            error = replay.replay_error(clean, index)
            what = f"layer {index} cannot be replayed from its recorded input"
        layer.parallel = not replay.mlp_reads_attention(clean, index)
    if not error <= bound:
        raise InputError(
            f"model {decoder.name} ({decoder.architecture}): {what} (off by {error:.3g}, allowed "
            f"{bound:.3g}); its blocks or logits do something the method does not define"
        )
