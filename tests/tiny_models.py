"""Tiny models of every supported architecture, saved as local Hugging Face directories.

Every parameter is randomised, biases and norm gains too: a zero bias or a unit gain hides mistakes.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Cohere2Config,
    CohereConfig,
    Exaone4Config,
    Gemma2Config,
    Gemma3TextConfig,
    Glm4Config,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MambaConfig,
    NanoChatConfig,
    Olmo2Config,
    Olmo3Config,
    OPTConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    VaultGemmaConfig,
)

VOCABULARY = 61
LAYERS = 3
POSITIONS = 64

_llama_like = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": POSITIONS,
    "tie_word_embeddings": False,
}

_no_head_dim = {k: v for k, v in _llama_like.items() if k != "head_dim"}
_gemma_like = _llama_like | {"sliding_window": 6, "query_pre_attn_scalar": 8}
_caps = {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 4.0}  # low, so that they matter
_alternating = ["sliding_attention", "full_attention", "sliding_attention"]

CONFIGS: dict[str, PretrainedConfig] = {
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY, n_layer=LAYERS, n_head=3, n_embd=24, n_positions=POSITIONS
    ),
    "pythia": GPTNeoXConfig(
        vocab_size=VOCABULARY,
        num_hidden_layers=LAYERS,
        num_attention_heads=3,
        hidden_size=24,
        intermediate_size=40,
        max_position_embeddings=POSITIONS,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    ),
    "neox_sequential": GPTNeoXConfig(
        vocab_size=VOCABULARY,
        num_hidden_layers=LAYERS,
        num_attention_heads=3,
        hidden_size=24,
        intermediate_size=40,
        max_position_embeddings=POSITIONS,
        use_parallel_residual=False,
    ),
    "opt": OPTConfig(
        vocab_size=VOCABULARY,
        num_hidden_layers=LAYERS,
        num_attention_heads=3,
        hidden_size=24,
        word_embed_proj_dim=24,
        ffn_dim=40,
        max_position_embeddings=POSITIONS,
    ),
    "gpt_neo": GPTNeoConfig(
        vocab_size=VOCABULARY,
        num_layers=4,
        num_heads=3,
        hidden_size=24,
        intermediate_size=40,
        max_position_embeddings=POSITIONS,
        attention_types=[[["global", "local"], 2]],
        window_size=4,
    ),
    "llama": LlamaConfig(**_llama_like),
    "qwen2": Qwen2Config(**_no_head_dim),
    "qwen3": Qwen3Config(**_llama_like),
    "gemma2": Gemma2Config(**_gemma_like, **_caps),
    "gemma3": Gemma3TextConfig(**_gemma_like, layer_types=_alternating),
    "olmo2": Olmo2Config(**_no_head_dim),
    "olmo3": Olmo3Config(**_no_head_dim, sliding_window=6, layer_types=_alternating),
    "glm4": Glm4Config(**_llama_like, attention_bias=True, pad_token_id=3),
    "exaone4": Exaone4Config(**_llama_like, sliding_window=6, sliding_window_pattern=2),
    "vaultgemma": VaultGemmaConfig(**_gemma_like, **_caps),
    "nanochat": NanoChatConfig(**_llama_like, final_logit_softcapping=6.0),
    "cohere": CohereConfig(**_no_head_dim, logit_scale=0.25),
    "cohere2": Cohere2Config(
        **_llama_like, logit_scale=0.25, sliding_window=6, layer_types=_alternating
    ),
    "granite": GraniteConfig(
        **_no_head_dim,
        embedding_multiplier=3.0,
        attention_multiplier=0.2,
        residual_multiplier=0.4,
        logits_scaling=1.7,
    ),
    "mamba": MambaConfig(vocab_size=VOCABULARY, hidden_size=24, num_hidden_layers=2),
}

# Wide enough that a sweep spends its time and memory as a real model's does.
WIDE: dict[str, PretrainedConfig] = {
    "gpt2": GPT2Config(n_layer=4, n_embd=192, n_head=6, vocab_size=3000),
    "pythia": GPTNeoXConfig(
        num_hidden_layers=4,
        hidden_size=192,
        intermediate_size=768,
        num_attention_heads=6,
        vocab_size=3000,
    ),
    "llama": LlamaConfig(
        hidden_size=192,
        intermediate_size=500,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        vocab_size=3000,
    ),
}

SUPPORTED = ["gpt2", "pythia", "neox_sequential", "opt", "gpt_neo", "llama", "qwen2", "qwen3"]
# Models for which the hooked bridge is no reference: blocks that normalise a sublayer's output, soft caps,
# logits and sublayers times a constant (docs/method.md section 3).
POST_NORMS = ["gemma2", "gemma3", "olmo2", "olmo3", "glm4", "exaone4"]
CAPS = {"gemma2": 4.0, "vaultgemma": 4.0, "nanochat": 6.0}
LOGIT_SCALES = {"cohere": 0.25, "cohere2": 0.25, "granite": 1 / 1.7}
HOOKED_PLAIN = sorted({*POST_NORMS, *CAPS, *LOGIT_SCALES})
# The code of these families, hooked or plain, keeps float64 where two paths could round apart.
FLOAT64 = ["gpt2", "pythia", "neox_sequential"]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer: four special tokens, then the words `w4` to `w60`."""
    words = {"<unk>": 0, "<bos>": 1, "<eos>": 2, "<pad>": 3}
    words |= {f"w{i}": i for i in range(4, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
    )


def naming_tokenizer() -> PreTrainedTokenizerFast:
    """The same with the names of the narrow task for words: all other words are one unknown token each."""
    from selfrepair.text.ioi import NAMES

    tokenizer = tiny_tokenizer()
    words = {"<unk>": 0, "<bos>": 1, "<eos>": 2, "<pad>": 3}
    words |= {name: 4 + index for index, name in enumerate(NAMES)}
    tokenizer.backend_tokenizer.model = models.WordLevel(words, unk_token="<unk>")
    return tokenizer


def random_words(count: int, *, seed: int) -> str:
    """Text of `count` words, a token each."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, VOCABULARY, (count,), generator=generator)
    return " ".join(f"w{token}" for token in tokens)


def save_tiny_model(name: str, folder: Path, *, seed: int = 0) -> Path:
    """Build architecture `name`, randomise all of its parameters, save it with a tokenizer."""
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[name])
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_gain = parameter.ndim == 1 and key.endswith("weight")
            parameter.copy_(1 + 0.3 * noise if is_gain else 0.3 * noise)
    return save(model, folder)


def save_model(config: PretrainedConfig, folder: Path) -> Path:
    """A model as it is before training, saved with a tokenizer."""
    return save(AutoModelForCausalLM.from_config(config), folder)


def save(content: PreTrainedModel | PretrainedConfig, folder: Path) -> Path:
    """A model, or the config of one without weights, saved with a tokenizer."""
    content.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def random_tokens(prompts: int, length: int, *, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (prompts, length), generator=generator)
