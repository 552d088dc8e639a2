"""A decoder-only language model whose heads can be ablated one by one: its layers and their weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .norms import Norm, Write
from .parts import ModelParts

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

    w_out: [neuron, d_model]; b_out: [d_model], which belongs to no neuron (docs/method.md section 3).
    """

    projection: nn.Module
    w_out: Float[Tensor, "neuron d_model"]
    b_out: Float[Tensor, " d_model"]


@dataclass
class Layer:
    """One decoder layer: the modules a replay watches, and the weights of its attention output.

    w_o: [head, d_head, d_model]; b_o: [d_model]; value_bias: [head, d_head], the constant part of z
    (value bias plus what the preceding norm's bias contributes through W_V; docs/method.md section 1).
    parallel: the MLP reads the layer's input and does not see the attention's output.
    override_at: the module whose output a replay gives instead of computing it: the attention, or its
    output projection where the attention module returns something else as well.
    neurons: the linear map that reads the MLP's neurons, None if its MLP has no such map.
    attention_write, mlp_write: how the two raw outputs enter the residual stream: as they are, times a
    constant, or through a post-norm.
    """

    block: nn.Module
    output_projection: nn.Module
    mlp: nn.Module
    w_o: Float[Tensor, "head d_head d_model"]
    b_o: Float[Tensor, " d_model"]
    value_bias: Float[Tensor, "head d_head"]
    override_at: nn.Module
    parallel: bool = False
    neurons: Neurons | None = None
    attention_write: Write = field(default_factory=Write)
    mlp_write: Write = field(default_factory=Write)


@dataclass
class Decoder:
    """A language model whose heads can be ablated one by one.

    network: the plain Hugging Face model; parts: the names by which its layers were found;
    unembedding: [vocabulary, d_model]; unembedding_bias: [vocabulary];
    folder: where its files are, None for a model that was never saved; commit: what the hub gave, None
    for a local directory.
    logit_scale: what the model multiplies its logits by; part of u and b (docs/method.md section 1).
    logit_softcap: the model then makes its logits x into cap * tanh(x / cap); everything is measured on
    x, before the cap (section 3). None: no cap.
    adds_in_place: its blocks change in place what they read or what their sublayers give, so whatever is
    recorded or replayed is a copy.
    """

    name: str
    network: Any
    parts: ModelParts
    layers: list[Layer]
    final_norm: Norm
    unembedding: Float[Tensor, "vocabulary d_model"]
    unembedding_bias: Float[Tensor, " vocabulary"]
    tokenizer: Any
    folder: Path | None = None
    commit: str | None = None
    logit_scale: float = 1.0
    logit_softcap: float | None = None
    adds_in_place: bool = False
    _caches: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def architecture(self) -> str:
        return self.parts.architecture

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
    def has_post_norms(self) -> bool:
        """Whether any block normalises a sublayer's output before adding it to the stream."""
        return any(
            write.norm is not None
            for layer in self.layers
            for write in (layer.attention_write, layer.mlp_write)
        )

    @property
    def context_length(self) -> int:
        return self.parts.context_length

    def for_another_thread(self) -> Decoder:
        """The same decoder with modules of its own on the same tensors.

        Hooks and replaced outputs of one are not seen by the other.
        """
        neurons = [layer.neurons for layer in self.layers if layer.neurons]
        writes = [w for layer in self.layers for w in (layer.attention_write, layer.mlp_write)]
        norms = [self.final_norm, *(write.norm for write in writes if write.norm)]
        held = [*self.network.modules(), *self.layers, *neurons, *norms]
        tensors = [value for item in held for value in vars(item).values()]
        tensors += [*self.network.parameters(), *self.network.buffers()]
        shared = [self.tokenizer, self.network.config, self._caches]
        shared += [self.unembedding, self.unembedding_bias]
        shared += [value for value in tensors if torch.is_tensor(value)]
        return copy.deepcopy(self, {id(value): value for value in shared})

    def to_logits(self, residual: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch vocab"]:
        """The model's logits of a final residual before any soft cap, centred over the vocabulary."""
        logits = self.uncapped_logits(residual)
        return logits - logits.mean(-1, keepdim=True)

    def uncapped_logits(
        self, residual: Float[Tensor, "*batch d_model"]
    ) -> Float[Tensor, "*batch vocab"]:
        """The model's logits of a final residual before any soft cap."""
        return self.unembedded(self.final_norm.module(residual))

    def unembedded(
        self, normed: Float[Tensor, "*batch d_model"], tokens: slice = slice(None)
    ) -> Float[Tensor, "*batch some"]:
        """Logits before any soft cap of some tokens of the vocabulary; normed: the final norm's output."""
        rows, bias = self.unembedding[tokens], self.unembedding_bias[tokens]
        logits = torch.nn.functional.linear(normed, rows, bias)
        return logits if self.logit_scale == 1 else self.logit_scale * logits

    def capped(self, logits: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch vocab"]:
        """What the model's own output is, given its logits before the cap."""
        cap = self.logit_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)
