"""The sizes of a decoder, and the time and memory that follow from them.

Imports no torch, so that a plan can be made in an instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
# Tokens of one replay: enough to feed the matrix products, few enough to stay in the cache; a GPU
# wants more work at once.
_CHUNK_TOKENS = {"cpu": 1024, "cuda": 65536}
# Prompts that are recorded before their heads are replayed. More of them are longer replays on a GPU.
_PROMPTS_AT_ONCE = {"cpu": 8, "cuda": 64}
# Streams are cut after the last position looked at in steps of this: few lengths are learnt quickly.
LENGTH_STEP = 16
# Arrays of a sweep per token and head, all in float32 while it runs.
ARRAYS = 8


def prompts_at_once(device: str) -> int:
    """Prompts to record at once, by the type of a torch device."""
    return _PROMPTS_AT_ONCE.get(device, _PROMPTS_AT_ONCE["cuda"])


def chunk_tokens(device: str) -> int:
    """Tokens to replay at once, by the type of a torch device."""
    return _CHUNK_TOKENS.get(device, _CHUNK_TOKENS["cuda"])


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that time and memory follow from (a dense transformer).

    gated: an MLP of three matrices instead of two; parallel: the MLP does not see its own layer's
    attention; tied: the unembedding is the embedding.
    """

    layers: int
    heads: int
    d_model: int
    d_mlp: int
    vocabulary: int
    kv_heads: int
    d_head: int
    gated: bool = False
    parallel: bool = False
    tied: bool = False

    @property
    def attention_parameters(self) -> int:
        return self.d_model * self.d_head * (2 * self.heads + 2 * self.kv_heads)

    @property
    def mlp_parameters(self) -> int:
        return (3 if self.gated else 2) * self.d_model * self.d_mlp

    @property
    def layer_parameters(self) -> int:
        """Parameters of a layer's matrices. Biases and norms are left out: they are less than 0.1 %."""
        return self.attention_parameters + self.mlp_parameters

    @property
    def parameters(self) -> int:
        embeddings = self.vocabulary * self.d_model * (1 if self.tied else 2)
        return self.layers * self.layer_parameters + embeddings

    def flop_of_head(self, layer: int) -> float:
        """Arithmetic floor of ablating one head on one token: the MLP of its layer, if it sees the
        change, and all later layers; two operations per parameter."""
        later = (self.layers - 1 - layer) * self.layer_parameters
        return 2.0 * (later + (0 if self.parallel else self.mlp_parameters))

    def flop_of_sweep(self) -> float:
        """Floor of ablating every head on one token."""
        return self.heads * sum(self.flop_of_head(layer) for layer in range(self.layers))

    def flop_of_pass(self) -> float:
        """One clean pass with its logits, per token."""
        return 2.0 * (self.layers * self.layer_parameters + self.vocabulary * self.d_model)

    def weight_bytes(self, dtype: str, device: str) -> float:
        """Bytes of the weights in memory. On a CPU in float32 the layers' matrices are held twice: as loaded,
        and packed for oneDNN."""
        layers = self.layers * self.layer_parameters
        held = self.parameters + (layers if device == "cpu" and dtype == "float32" else 0)
        return float(BYTES[dtype] * held)

    def recording_bytes(self, dtype: str, positions: int) -> float:
        """What stays in memory of one prompt: its clean pass, z of its resample partner, and its results."""
        streams = (3 * self.layers + 2) * self.d_model + 2 * self.layers * self.heads * self.d_head
        results = (ARRAYS + 1) * self.layers * self.heads
        return positions * (BYTES[dtype] * streams + 4.0 * results)

    def logit_bytes(self, dtype: str, positions: int) -> float:
        """The logits of one prompt over the whole vocabulary: three times in the model's dtype, three times in
        float32."""
        return positions * self.vocabulary * (3.0 * BYTES[dtype] + 3 * 4)

    def replay_bytes(self, dtype: str) -> float:
        """The most that is held at once while a token is replayed, per token."""
        attention = 2 * (self.heads + 2 * self.kv_heads) * self.d_head
        neurons = 3 * self.d_mlp
        return BYTES[dtype] * (8.0 * self.d_model + max(attention, neurons)) + 5 * 4 * self.d_model

    def working_bytes(
        self, dtype: str, *, positions: int, prompts: int, rows: int, workers: int = 1
    ) -> float:
        """The most that a sweep holds beside the weights: so many prompts recorded, rows replayed by
        each worker."""
        passing = positions * max(prompts, rows * workers) * self.replay_bytes(dtype)
        recorded = prompts * self.recording_bytes(dtype, positions)
        return recorded + max(passing, self.logit_bytes(dtype, positions))


def shape_from(config: Mapping[str, Any]) -> Shape | None:
    """The shape that a Hugging Face config states, under any of its families' names.

    None where it states no dense decoder: a key is missing, or it has experts.
    """

    def first(*names: str) -> Any:
        return next((config[name] for name in names if config.get(name) is not None), None)

    layers, heads = (
        first("num_hidden_layers", "n_layer", "num_layers"),
        first("num_attention_heads", "n_head", "num_heads"),
    )
    d_model, vocabulary = first("hidden_size", "n_embd", "d_model"), first("vocab_size")
    if not all(isinstance(v, int) for v in (layers, heads, d_model, vocabulary)):
        return None
    if first("num_experts", "num_local_experts", "n_routed_experts"):
        return None
    family = str(config.get("model_type", ""))
    return Shape(
        layers=layers,
        heads=heads,
        d_model=d_model,
        d_mlp=first("intermediate_size", "n_inner", "ffn_dim") or 4 * d_model,
        vocabulary=vocabulary,
        kv_heads=first("num_key_value_heads") or heads,
        d_head=first("head_dim") or d_model // heads,
        gated="rms_norm_eps" in config,
        parallel=family == "gpt_neox" and bool(config.get("use_parallel_residual", True)),
        tied=bool(config.get("tie_word_embeddings", family != "gpt_neox")),
    )


def check_shape(stated: Mapping[str, Any], found: Shape, *, key: str) -> None:
    """Refuse a model that is not what the config says of it under models.<key> (InputError)."""
    seen_in_a_loaded_model = set(stated) - {"gated", "tied"}
    for name in sorted(seen_in_a_loaded_model):
        if stated[name] != getattr(found, name):
            raise InputError(
                f"models.{key}.shape.{name}: {stated[name]}, but the model has {getattr(found, name)}; "
                "correct it, or leave `shape` out"
            )
