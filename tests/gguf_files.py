"""GGUF files of tiny models, written with llama.cpp's own library as its converter would write them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import (
    MODEL_ARCH,
    MODEL_ARCH_NAMES,
    GGMLQuantizationType,
    GGUFWriter,
    TokenType,
    get_tensor_name_map,
    quants,
)
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

SPECIAL = ["<unk>", "<bos>", "<eos>", "<pad>"]
# The special tokens, then letters, digits and the space of byte-level tokenizers, and one merge.
TOKENS = [*SPECIAL, *"abcdefghijklmnopqrstuvwxyz", *"0123456789", "Ġ", "th"]

# Blocks of quantised weights have 32 values.
_sizes: dict[str, Any] = {
    "vocab_size": len(TOKENS),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**_sizes, head_dim=8, tie_word_embeddings=True),
    "llama_untied": LlamaConfig(**_sizes, head_dim=8, tie_word_embeddings=False),
    "qwen2": Qwen2Config(**_sizes, tie_word_embeddings=True),
    "gemma3": Gemma3TextConfig(**_sizes, head_dim=16, sliding_window=4, query_pre_attn_scalar=256),
}


def tiny_model(name: str, *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A model of this config, all of its parameters random."""
    generator = torch.Generator().manual_seed(seed)
    config = type(CONFIGS[name])(**CONFIGS[name].to_dict() | changes)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.3 * noise + (1.0 if parameter.ndim == 1 else 0.0))
    return model


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    *,
    quantised: Mapping[str, GGMLQuantizationType] | None = None,
    add: Mapping[str, np.ndarray] | None = None,
    leave_out: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model of CONFIGS with a tokenizer.

    Args:
        quantised: type of each tensor that is not float32, by its GGUF name.
        add: tensors that are written besides, or in place of the model's, by their GGUF name.
        leave_out: a tensor that is not written, by its GGUF name.
        metadata: strings and integers that are written besides, by key.
    """
    config = model.config
    architecture = config.model_type.removesuffix("_text")
    writer = GGUFWriter(path, architecture)
    _write_sizes(writer, config)
    _write_tokenizer(writer)
    for key, value in (metadata or {}).items():
        (writer.add_string if isinstance(value, str) else writer.add_uint32)(key, value)
    arch = next(a for a in MODEL_ARCH if MODEL_ARCH_NAMES[a] == architecture)
    names = get_tensor_name_map(arch, config.num_hidden_layers)
    tensors: dict[str, np.ndarray] = {}
    for key, parameter in model.named_parameters():
        values = _laid_out(key, parameter.detach().numpy(), config)
        tensors[names.get_name(key, try_suffixes=(".weight", ".bias"))] = values
    for name, values in (tensors | dict(add or {})).items():
        if name == leave_out:
            continue
        kind = (quantised or {}).get(name)
        if kind is None:
            writer.add_tensor(name, np.ascontiguousarray(values, np.float32))
        else:
            writer.add_tensor(name, quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_sizes(writer: GGUFWriter, config: PreTrainedConfig) -> None:
    head = config.head_dim if hasattr(config, "head_dim") else config.hidden_size // 4
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)


def _write_tokenizer(writer: GGUFWriter) -> None:
    control = [TokenType.CONTROL if token in SPECIAL else TokenType.NORMAL for token in TOKENS]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(TOKENS)
    writer.add_token_types(control)
    writer.add_token_merges(["t h"])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(3)


def _laid_out(key: str, values: np.ndarray, config: PreTrainedConfig) -> np.ndarray:
    """As llama.cpp has it: Llama's queries and keys by pairs of rotated dimensions, Gemma's gains plus one."""
    if config.model_type.startswith("gemma") and key.endswith("norm.weight"):
        return values + 1
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    projection = key.split(".")[-2]
    if config.model_type != "llama" or projection not in heads:
        return values
    halves = values.reshape(heads[projection], 2, -1, values.shape[-1])
    return halves.swapaxes(1, 2).reshape(values.shape)
