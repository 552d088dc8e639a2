"""Tiny models of random architecture for property tests: hypothesis draws every size, the kinds of norm, block
and projection, the number format and the weights.

Nothing is written to disk: a network is built, randomised and made into a decoder as `load_model` would.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Cohere2Config,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    Olmo2Config,
    PretrainedConfig,
    Qwen3Config,
)
from transformers.pytorch_utils import Conv1D

from selfrepair.ablations import ABLATIONS, DONORS, MEANS, Baselines
from selfrepair.model.assembly import decoder_of
from selfrepair.model.decoder import DTYPES, Decoder
from selfrepair.model.finding import parts_of
from selfrepair.model.probing import probe

# (layer, head)
Head = tuple[int, int]


@dataclass(frozen=True)
class Sizes:
    """What every architecture is built from; width: dimensions of the stream per head, where that is free.

    d_head is even, as rotary embeddings need it.
    """

    layers: int
    heads: int
    key_value_heads: int
    d_head: int
    width: int
    neurons: int
    vocabulary: int
    biases: bool


def _gpt2(s: Sizes) -> PretrainedConfig:
    return GPT2Config(
        vocab_size=s.vocabulary,
        n_layer=s.layers,
        n_head=s.heads,
        n_embd=s.heads * s.d_head,
        n_inner=s.neurons,
        n_positions=16,
    )


def _neox(s: Sizes, *, parallel: bool) -> PretrainedConfig:
    return GPTNeoXConfig(
        vocab_size=s.vocabulary,
        num_hidden_layers=s.layers,
        num_attention_heads=s.heads,
        hidden_size=s.heads * s.d_head,
        intermediate_size=s.neurons,
        max_position_embeddings=16,
        use_parallel_residual=parallel,
        attention_bias=s.biases,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0},
    )


def _llama_like(s: Sizes, *, free_width: bool) -> dict[str, Any]:
    """free_width: the stream is as wide as drawn, whatever heads write from."""
    sizes: dict[str, Any] = {
        "vocab_size": s.vocabulary,
        "hidden_size": s.heads * (s.width if free_width else s.d_head),
        "intermediate_size": s.neurons,
        "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.key_value_heads,
        "max_position_embeddings": 16,
        "tie_word_embeddings": False,
        "pad_token_id": None,
    }
    return sizes | ({"head_dim": s.d_head} if free_width else {})


_MULTIPLIERS = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.4,
    "logits_scaling": 1.7,
}
_GEMMA = {"sliding_window": 3, "query_pre_attn_scalar": 4, "final_logit_softcapping": None}
ARCHITECTURES: dict[str, Callable[[Sizes], PretrainedConfig]] = {
    "gpt2": _gpt2,
    "neox_parallel": lambda s: _neox(s, parallel=True),
    "neox_sequential": lambda s: _neox(s, parallel=False),
    "llama": lambda s: LlamaConfig(
        **_llama_like(s, free_width=True), attention_bias=s.biases, mlp_bias=s.biases
    ),
    "qwen3": lambda s: Qwen3Config(**_llama_like(s, free_width=True), attention_bias=s.biases),
    "gemma2": lambda s: Gemma2Config(**_llama_like(s, free_width=True), **_GEMMA),
    "olmo2": lambda s: Olmo2Config(**_llama_like(s, free_width=False), attention_bias=s.biases),
    "cohere": lambda s: CohereConfig(**_llama_like(s, free_width=False), logit_scale=0.25),
    "cohere2": lambda s: Cohere2Config(
        **_llama_like(s, free_width=True), logit_scale=0.25, sliding_window=3
    ),
    "granite": lambda s: GraniteConfig(
        **_llama_like(s, free_width=False), attention_bias=s.biases, **_MULTIPLIERS
    ),
}
UNTIED = tuple(name for name in ARCHITECTURES if name not in ("gpt2", "cohere", "cohere2"))


@st.composite
def sizes(draw: st.DrawFn, *, least_layers: int) -> Sizes:
    heads = draw(st.sampled_from([3, 1, 2, 5]))
    return Sizes(
        layers=draw(st.integers(least_layers, 4)),
        heads=heads,
        key_value_heads=draw(st.sampled_from([n for n in range(1, heads + 1) if not heads % n])),
        d_head=draw(st.sampled_from([4, 2, 6])),
        width=draw(st.sampled_from([8, 5, 12])),
        neurons=draw(st.integers(1, 20)),
        vocabulary=draw(st.integers(4, 40)),
        biases=draw(st.booleans()),
    )


@dataclass(frozen=True)
class Case:
    """A model, prompts and an ablation, all made from what is drawn.

    silent: the head of layer 0 that writes nothing, if any. model, plain: the decoder, and the same network
    untouched.
    """

    architecture: str
    dtype: str
    sizes: Sizes
    prompts: int
    length: int
    ablation: str
    spread: float
    seed: int
    silent: int | None = None

    @cached_property
    def _networks(self) -> tuple[Decoder, Any]:
        network = _network(self)
        plain = copy.deepcopy(network)
        parts = parts_of(network, name=str(self))
        model = decoder_of(network, parts, name=str(self))
        probe(model)
        return model, plain

    @property
    def model(self) -> Decoder:
        return self._networks[0]

    @property
    def plain(self) -> Any:
        return self._networks[1]

    @cached_property
    def tokens(self) -> Tensor:
        return self._some_tokens(1)

    @cached_property
    def donors(self) -> Tensor:
        return self._some_tokens(2)

    def _some_tokens(self, kind: int) -> Tensor:
        generator = torch.Generator().manual_seed(4 * self.seed + kind)
        shape = (self.prompts, self.length)
        return torch.randint(0, self.sizes.vocabulary, shape, generator=generator)

    @property
    def heads(self) -> list[Head]:
        return [(i, j) for i in range(self.sizes.layers) for j in range(self.sizes.heads)]

    def given(
        self, rows: slice | Tensor = slice(None), mean_z: Tensor | None = None
    ) -> dict[str, Any]:
        """What the ablation of some prompts needs."""
        needs = ABLATIONS[self.ablation].needs
        return {
            "ablation": self.ablation,
            "donors": self.donors[rows] if DONORS in needs else None,
            "mean_z": mean_z if MEANS in needs else None,
        }


def cases(
    *,
    architectures: tuple[str, ...] = tuple(ARCHITECTURES),
    dtypes: tuple[str, ...] = ("float32", "float64", "bfloat16"),
    ablations: tuple[str, ...] = tuple(ABLATIONS),
    least_layers: int = 1,
    silent: int | None = None,
) -> st.SearchStrategy[Case]:
    return st.builds(
        Case,
        architecture=st.sampled_from(architectures),
        dtype=st.sampled_from(dtypes),
        sizes=sizes(least_layers=least_layers),
        prompts=st.integers(1, 5),
        length=st.integers(3, 13),
        ablation=st.sampled_from(ablations),
        spread=st.sampled_from([0.3, 0.1, 0.6]),
        seed=st.integers(0, 2**16),
        silent=st.just(silent),
    )


def _network(case: Case) -> Any:
    """A network whose every parameter is random: gains about 1, the rest about 0."""
    generator = torch.Generator().manual_seed(4 * case.seed)
    config = ARCHITECTURES[case.architecture](case.sizes)
    network: Any = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for key, parameter in network.named_parameters():
        noise = case.spread * torch.randn(parameter.shape, generator=generator)
        is_gain = parameter.ndim == 1 and key.endswith("weight")
        parameter.copy_(1 + noise if is_gain else noise)
    if case.silent is not None:
        _silence(network, 0, case.silent)
    network.config.use_cache = False
    return network.to(DTYPES[case.dtype])


def _silence(network: Any, layer: int, head: int) -> None:
    """Make a head write nothing: its rows of the output projection become 0."""
    parts = parts_of(network, name="silenced")
    projection = network.get_submodule(parts.layers[layer].output_projection)
    weight = projection.weight if isinstance(projection, Conv1D) else projection.weight.T
    d_head = weight.shape[0] // parts.n_heads
    weight[head * d_head : (head + 1) * d_head] = 0


def plain_logits(
    case: Case, tokens: Tensor, *, z: tuple[int, int, Tensor] | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Centred logits of the untouched network in float64, and z of every layer [prompt, position, head, d_head].

    z: layer, head and what a hook puts in place of the head's z.
    """
    seen, handles = list[Tensor](), []
    n_heads = case.model.n_heads

    def hook(at: int) -> Callable[..., Any]:
        def before(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            heads = args[0].reshape(*tokens.shape, n_heads, -1).clone()
            seen.append(heads.clone())
            if z is not None and z[0] == at:
                heads[:, :, z[1]] = z[2]
            return (heads.reshape(args[0].shape), *args[1:])

        return before

    for at, layer in enumerate(case.model.parts.layers):
        module = case.plain.get_submodule(layer.output_projection)
        handles.append(module.register_forward_pre_hook(hook(at)))
    try:
        with torch.no_grad():
            logits = case.plain(tokens, use_cache=False).logits.double()
    finally:
        for handle in handles:
            handle.remove()
    return logits - logits.mean(-1, keepdim=True), seen


def plain_replacement(case: Case, layer: int, head: int) -> Tensor:
    """What the ablation puts in place of a head's z, from the untouched network's own passes."""
    _, z = plain_logits(case, case.tokens)
    _, donor_z = plain_logits(case, case.donors)
    given = Baselines(
        z=z[layer],
        value_bias=case.model.layers[layer].value_bias,
        donor_z=donor_z[layer],
        mean_z=z[layer].double().mean((0, 1)).to(z[layer].dtype),
    )
    return ABLATIONS[case.ablation].replacement(given).expand_as(z[layer])[:, :, head]
