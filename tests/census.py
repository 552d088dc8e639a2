"""Every decoder architecture that TransformerLens names and transformers can build, as tiny models: which
are right, which are refused, and why.

`tests/integration/test_census.py` proves each line; `python tests/census.py` writes docs/models.md from
them (`--check` tells whether it is current).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

PAGE = Path(__file__).parents[1] / "docs/models.md"
WINDOW = 4  # positions that a layer with a sliding window or chunked attention sees

# Given where a config has such a key. Heads times d_head is not d_model, biases are on, and every size
# differs from the others, so that a mix-up shows.
_COMMON: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 64,
    "pad_token_id": 3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attention_bias": True,
    "mlp_bias": True,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 20,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": WINDOW,
}
_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_GPT = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
_WINDOWS = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
_GEMMA = {**_WINDOWS, "query_pre_attn_scalar": 12}
_CAPPED = {"final_logit_softcapping": 5.0, "attn_logit_softcapping": 3.0}
_GRANITE = {
    "embedding_multiplier": 1.3,
    "logits_scaling": 0.7,
    "residual_multiplier": 0.6,
    "attention_multiplier": 0.4,
}
_LATENT = {
    "kv_lora_rank": 12,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 6,
    "v_head_dim": 10,
    "num_key_value_heads": 4,
    "head_dim": 4,
}
_LINEAR_LAYERS = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
}
_SSM = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8}
_LLAMA4 = {
    "attention_chunk_size": WINDOW,
    "no_rope_layers": [1, 0, 1],
    "interleave_moe_layer_step": 2,
    "floor_scale": 4,
    "intermediate_size_mlp": 40,
    "rope_parameters": _ROPE,
}
_GEMMA4 = {**_WINDOWS, "vocab_size_per_layer_input": 61, "per_layer_config": {}}

# What is special about a model, in the words of docs/models.md; the test measures each.
PARALLEL = "attention and MLP in parallel"
POST_NORMS = "post-norms"
SCALED = "scaled logits"
CAPPED = "soft-capped logits"
FACTORS = "multiplied sublayers"
EXPERTS = "mixture of experts: no neurons"
WINDOWED = "layers that see a window"
SINKS = "attention sinks"

# Reasons for which a model is refused: what its message says, and the page in more words.
NO_HEADS = "has no separable attention heads and MLP"
NO_SUM = "the direct effects of its components do not add up to its logits"
NO_STACK = "no stack of layers, final norm and unembedding"
OTHER_LOGITS = "its logits are not its unembedding of what its final norm gives"
OTHER_STREAM = "its final norm does not read what its last layer gives"
READS_MORE = "besides the residual stream"
UNEQUAL = "heads of different number or size"
NOT_BUILT = "transformers builds no language model"


@dataclass(frozen=True)
class Case:
    """A tiny model of one architecture.

    model_type: the architecture's key in transformers; options: of its config, beyond _COMMON; variant:
    what tells it from the architecture's other cases; traits: what is special about it, measured; refused:
    what its refusal says, None for a model that is right; because: the same for the page;
    reference_attention: the implementation that the reference runs.
    """

    model_type: str
    options: dict[str, Any] = field(default_factory=dict)
    variant: str = ""
    traits: tuple[str, ...] = ()
    refused: str | None = None
    because: str = ""
    reference_attention: str = "eager"

    @property
    def key(self) -> str:
        return f"{self.model_type} ({self.variant})" if self.variant else self.model_type

    @property
    def architecture(self) -> str:
        """The class that transformers builds."""
        name: Any = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[self.model_type]
        return name if isinstance(name, str) else name[0]

    def config(self) -> PretrainedConfig:
        default, options = AutoConfig.for_model(self.model_type), dict(self.options)
        if "text_config" in options:
            options["text_config"] = _sized(default.text_config) | options["text_config"]
        return AutoConfig.for_model(self.model_type, **_sized(default) | options)

    def build(self) -> Any:
        """The model, all of its parameters random: a zero bias or a unit gain hides mistakes."""
        generator = torch.Generator().manual_seed(0)
        model = AutoModelForCausalLM.from_config(self.config())
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noise = 0.3 * torch.randn(parameter.shape, generator=generator)
                is_gain = parameter.ndim == 1 and name.endswith("weight")
                parameter.copy_(1 + noise if is_gain else noise)
        return model


def _sized(default: PretrainedConfig) -> dict[str, Any]:
    keys = default.to_dict()
    return {key: value for key, value in _COMMON.items() if key in keys}


def _right(model_type: str, *traits: str, variant: str = "", **options: Any) -> Case:
    return Case(model_type, options, variant, traits)


def _refused(
    model_type: str, refused: str, because: str, *, variant: str = "", **options: Any
) -> Case:
    return Case(model_type, options, variant, refused=refused, because=because)


_NOT_ALL_ATTENTION = "not every layer is attention with heads that write through one linear map"

CASES = [
    _right(
        "afmoe",
        POST_NORMS,
        EXPERTS,
        WINDOWED,
        num_dense_layers=1,
        num_shared_experts=1,
        route_scale=1.7,
        mup_enabled=True,
        global_attn_every_n_layers=2,
        **_WINDOWS,
    ),
    _right("apertus"),
    _right("arcee"),
    _refused("bamba", NO_HEADS, _NOT_ALL_ATTENTION, attn_layer_indices=[1], **_SSM),
    _refused(
        "bert",
        OTHER_STREAM,
        "normalises the stream after each sublayer; no decoder",
        is_decoder=True,
    ),
    _right("bitnet"),
    _right("bloom", n_layer=3, n_head=4),
    _refused(
        "bloom",
        NO_SUM,
        "adds sublayers to the normalised stream",
        variant="residual after the norm",
        n_layer=3,
        n_head=4,
        apply_residual_connection_post_layernorm=True,
    ),
    _right("codegen", PARALLEL, rotary_dim=4, n_ctx=64, **_GPT),
    _right("cohere", PARALLEL, SCALED, logit_scale=0.3, use_qk_norm=True),
    _right("cohere2", PARALLEL, SCALED, WINDOWED, logit_scale=0.3, **_WINDOWS),
    _right(
        "deepseek_v2",
        EXPERTS,
        first_k_dense_replace=1,
        routed_scaling_factor=1.5,
        n_shared_experts=1,
        **_LATENT,
    ),
    _right(
        "deepseek_v3",
        EXPERTS,
        first_k_dense_replace=1,
        n_group=2,
        topk_group=1,
        n_shared_experts=1,
        **_LATENT,
    ),
    _refused(
        "deepseek_v4",
        NO_HEADS,
        "several residual streams, grouped output projections",
        q_lora_rank=16,
        o_groups=2,
        o_lora_rank=8,
        index_n_heads=2,
        index_head_dim=8,
        index_topk=4,
        hc_mult=2,
    ),
    _right("ernie4_5", use_bias=True),
    _right(
        "ernie4_5_moe",
        EXPERTS,
        use_bias=True,
        moe_num_experts=4,
        moe_k=2,
        moe_num_shared_experts=1,
        moe_layer_start_index=1,
        moe_layer_end_index=2,
    ),
    _right("exaone4", POST_NORMS, WINDOWED, **_WINDOWS),
    _right("falcon", PARALLEL, bias=True, num_kv_heads=1, ffn_hidden_size=40),
    Case(
        "falcon",
        {
            "bias": True,
            "num_kv_heads": 4,
            "ffn_hidden_size": 40,
            "parallel_attn": False,
            "multi_query": False,
            "alibi": True,
        },
        variant="sequential, ALiBi",
        reference_attention="sdpa",  # transformers' eager code adds the ALiBi biases twice
    ),
    _right(
        "falcon",
        PARALLEL,
        variant="new decoder",
        bias=True,
        num_kv_heads=2,
        ffn_hidden_size=40,
        new_decoder_architecture=True,
    ),
    _refused(
        "falcon_h1",
        NO_SUM,
        "a state-space mixer beside the attention of each layer",
        mamba_d_ssm=32,
        mamba_n_heads=4,
        mamba_d_head=8,
        mamba_d_state=8,
    ),
    _refused(
        "falcon_mamba",
        NO_HEADS,
        "no attention",
        state_size=4,
        intermediate_size=64,
        time_step_rank=4,
    ),
    _right("flex_olmo", POST_NORMS, EXPERTS),
    _right("gemma"),
    _right("gemma2", POST_NORMS, CAPPED, WINDOWED, **_GEMMA, **_CAPPED),
    _right(
        "gemma3",
        POST_NORMS,
        WINDOWED,
        text_config=_GEMMA,
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 8,
            "patch_size": 4,
        },
    ),
    _right("gemma3_text", POST_NORMS, WINDOWED, **_GEMMA),
    _refused("gemma3n", NOT_BUILT, "several residual streams; needs packages for images"),
    _right(
        "gemma4",
        POST_NORMS,
        WINDOWED,
        text_config={**_GEMMA4, "hidden_size_per_layer_input": 0},
    ),
    _right("gemma4_text", POST_NORMS, WINDOWED, hidden_size_per_layer_input=0, **_GEMMA4),
    _refused(
        "gemma4_text",
        READS_MORE,
        "each layer also reads embeddings of the tokens",
        variant="embeddings per layer",
        hidden_size_per_layer_input=8,
        **_GEMMA4,
    ),
    _right(
        "gemma4_unified",
        POST_NORMS,
        WINDOWED,
        text_config={**_GEMMA4, "hidden_size_per_layer_input": 0},
    ),
    _right("glm"),
    _right("glm4", POST_NORMS),
    _right(
        "glm4_moe", EXPERTS, first_k_dense_replace=1, use_qk_norm=True, routed_scaling_factor=1.5
    ),
    _right("glm4_moe_lite", EXPERTS, routed_scaling_factor=1.5, **_LATENT),
    _refused(
        "glm_moe_dsa",
        READS_MORE,
        "a layer reads which positions an earlier one has picked",
        index_topk=4,
        index_head_dim=8,
        index_n_heads=2,
        first_k_dense_replace=1,
        **_LATENT,
    ),
    _right("gpt-sw3", **_GPT),
    _right("gpt2", **_GPT),
    _right("gpt_bigcode", **_GPT),
    _right("gpt_bigcode", variant="no shared keys", multi_query=False, **_GPT),
    _right(
        "gpt_neo",
        WINDOWED,
        num_hidden_layers=4,
        num_layers=4,
        num_heads=4,
        attention_types=[[["global", "local"], 2]],
        window_size=WINDOW,
    ),
    _right("gpt_neox", PARALLEL, rope_parameters={**_ROPE, "partial_rotary_factor": 0.5}),
    _right(
        "gpt_neox",
        variant="sequential",
        use_parallel_residual=False,
        rope_parameters={**_ROPE, "partial_rotary_factor": 0.5},
    ),
    _right("gpt_oss", EXPERTS, WINDOWED, SINKS, rope_parameters=_ROPE, **_WINDOWS),
    _right("gptj", PARALLEL, rotary_dim=4, **_GPT),
    _right("granite", SCALED, FACTORS, **_GRANITE),
    _right("granitemoe", SCALED, FACTORS, EXPERTS, **_GRANITE),
    _right(
        "granitemoehybrid",
        SCALED,
        FACTORS,
        variant="attention in all layers, no experts",
        layer_types=["attention"] * 3,
        num_local_experts=0,
        position_embedding_type="rope",
        shared_intermediate_size=24,
        **_GRANITE,
        **_SSM,
    ),
    _refused(
        "granitemoehybrid",
        NO_HEADS,
        _NOT_ALL_ATTENTION,
        layer_types=["mamba", "attention", "mamba"],
        shared_intermediate_size=24,
        **_SSM,
    ),
    _refused("hrm_text", NO_STACK, "two stacks, run in cycles", num_layers_per_stack=2),
    _right("hunyuan_v1_dense"),
    _right("internlm3"),
    _right("iquestcoder"),
    _right("jais2"),
    _refused(
        "jamba",
        NO_HEADS,
        _NOT_ALL_ATTENTION,
        attn_layer_period=2,
        attn_layer_offset=1,
        mamba_d_state=4,
        mamba_dt_rank=4,
    ),
    _refused("jetmoe", NO_HEADS, "its attention heads are experts", kv_channels=8),
    _right("laguna", EXPERTS, WINDOWED, num_attention_heads_per_layer=[4, 4, 4], **_WINDOWS),
    _refused(
        "laguna",
        UNEQUAL,
        "layers have different numbers of heads",
        variant="heads per layer",
        num_attention_heads_per_layer=[4, 8, 4],
        **_WINDOWS,
    ),
    _refused("lfm2", NO_HEADS, _NOT_ALL_ATTENTION, layer_types=["conv", "full_attention", "conv"]),
    _refused(
        "lfm2_moe",
        NO_HEADS,
        _NOT_ALL_ATTENTION,
        layer_types=["conv", "full_attention", "conv"],
        num_dense_layers=1,
    ),
    _right("llama"),
    _right("llama4", EXPERTS, WINDOWED, text_config=_LLAMA4),
    _right("llama4_text", EXPERTS, WINDOWED, **_LLAMA4),
    _refused(
        "mamba", NO_HEADS, "no attention", state_size=4, intermediate_size=64, time_step_rank=4
    ),
    _refused(
        "mamba2",
        NO_HEADS,
        "no attention",
        num_heads=4,
        head_dim=16,
        state_size=8,
        n_groups=1,
        chunk_size=8,
    ),
    _right("minimax_m2", EXPERTS),
    _right("ministral3", WINDOWED),
    _right("mistral", WINDOWED),
    _right("mixtral", EXPERTS, WINDOWED),
    _refused(
        "modernbert-decoder",
        OTHER_LOGITS,
        "one more map and norm between the final norm and the unembedding",
        local_attention=2 * WINDOW,
        norm_bias=True,
        **_WINDOWS,
    ),
    _right("mpt", d_model=32, n_heads=4, n_layers=3, max_seq_len=64),
    _right("nanochat", CAPPED, final_logit_softcapping=5.0),
    _right("nemotron"),
    _refused(
        "nemotron_h",
        NO_HEADS,
        _NOT_ALL_ATTENTION,
        layers_block_type=["mamba", "attention", "mlp"],
        mamba_num_heads=4,
        mamba_head_dim=16,
        ssm_state_size=8,
        n_groups=1,
        chunk_size=8,
    ),
    _right("olmo", clip_qkv=0.8),
    _right("olmo2", POST_NORMS),
    _right("olmo3", POST_NORMS, WINDOWED, **_WINDOWS),
    _refused("olmo_hybrid", NO_HEADS, _NOT_ALL_ATTENTION, **_LINEAR_LAYERS),
    _right("olmoe", EXPERTS, clip_qkv=0.8),
    _refused("openai-gpt", NO_STACK, "no final norm", **_GPT),
    _right("opt", word_embed_proj_dim=32, ffn_dim=40),
    _refused(
        "opt",
        NO_STACK,
        "no final norm (OPT-350M)",
        variant="norms after sublayers",
        word_embed_proj_dim=24,
        ffn_dim=40,
        do_layer_norm_before=False,
    ),
    _right("phi", PARALLEL, qk_layernorm=True),
    _right("phi3", WINDOWED),
    _right("qwen2", WINDOWED, use_sliding_window=True, **_WINDOWS),
    _right("qwen2_moe", EXPERTS, WINDOWED, use_sliding_window=True, **_WINDOWS),
    _right("qwen3", WINDOWED, use_sliding_window=True, **_WINDOWS),
    _refused("qwen3_5", NO_HEADS, _NOT_ALL_ATTENTION, text_config=_LINEAR_LAYERS),
    _refused("qwen3_5_moe", NO_HEADS, _NOT_ALL_ATTENTION, text_config=_LINEAR_LAYERS),
    _refused("qwen3_5_moe_text", NO_HEADS, _NOT_ALL_ATTENTION, **_LINEAR_LAYERS),
    _refused("qwen3_5_text", NO_HEADS, _NOT_ALL_ATTENTION, **_LINEAR_LAYERS),
    _right("qwen3_moe", EXPERTS, WINDOWED, use_sliding_window=True, mlp_only_layers=[1]),
    _refused("qwen3_next", NO_HEADS, _NOT_ALL_ATTENTION, **_LINEAR_LAYERS),
    _refused(
        "recurrent_gemma",
        NO_HEADS,
        _NOT_ALL_ATTENTION,
        lru_width=32,
        block_types=["recurrent", "attention", "recurrent"],
        attention_window_size=WINDOW,
    ),
    _refused("rwkv", NO_HEADS, "no attention", attention_hidden_size=32, context_length=64),
    _right("seed_oss", attention_out_bias=True),
    _right("smollm3", WINDOWED, use_sliding_window=True, no_rope_layers=[1, 0, 1], **_WINDOWS),
    _right("stablelm", use_qkv_bias=True, qk_layernorm=True),
    _right("stablelm", PARALLEL, variant="parallel", use_qkv_bias=True, use_parallel_residual=True),
    _right("starcoder2", WINDOWED),
    _right("vaultgemma", CAPPED, WINDOWED, **_GEMMA, **_CAPPED),
    _right("xglm", d_model=32, ffn_dim=40, num_layers=3, attention_heads=4),
    _right("youtu", **_LATENT),
    _refused(
        "zamba2",
        NO_HEADS,
        _NOT_ALL_ATTENTION,
        layers_block_type=["mamba", "hybrid", "mamba"],
        n_mamba_heads=4,
        mamba_d_state=8,
        chunk_size=8,
    ),
]


def page() -> str:
    """docs/models.md."""
    right = [case for case in CASES if case.refused is None]
    refused = [case for case in CASES if case.refused is not None]
    lines = [
        "# Models",
        "",
        "Every decoder architecture that TransformerLens names and transformers can build. Each has been",
        "built as a tiny model with random parameters and compared, head by head, with the same model run",
        "whole under plain hooks: no number differs by more than 5e-5 logits in float32",
        "(`tests/integration/test_census.py`). Written by `python tests/census.py`; do not edit.",
        "",
        "Other architectures, and models that need code from the hub, are refused in one line, too.",
        "",
        f"## Right: {len({case.model_type for case in right})} architectures",
        "",
        "| architecture | `model_type` | what is special |",
        "| --- | --- | --- |",
    ]
    for case in right:
        lines.append(f"| {case.architecture} | {_type(case)} | {', '.join(case.traits)} |")
    lines += [
        "",
        *_NOTES,
        "",
        f"## Refused: {len({case.model_type for case in refused} - {case.model_type for case in right})} "
        "architectures, and variants of others",
        "",
        "| architecture | `model_type` | why | its message says |",
        "| --- | --- | --- | --- |",
    ]
    for case in refused:
        lines.append(f"| {case.architecture} | {_type(case)} | {case.because} | {case.refused} |")
    return "\n".join(lines) + "\n"


_NOTES = (
    f"- {POST_NORMS}: what they do is a term of its own, `from_post_norms` (docs/method.md).",
    f"- {SCALED}, {FACTORS}: the constants are found by value, and are part of every direct effect.",
    f"- {CAPPED}: everything is measured before the cap, and the outputs say so.",
    f"- {EXPERTS}: heads, `from_heads` and `from_mlps` are right; experiments on neurons are left out.",
    f"- {WINDOWED}: windows, chunks, and layers without positions, each layer as the model has it.",
)


def _type(case: Case) -> str:
    return f"`{case.model_type}`" + (f", {case.variant}" if case.variant else "")


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page()
        print(f"{PAGE}: {'current' if current else 'run python tests/census.py'}")
        return 0 if current else 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
