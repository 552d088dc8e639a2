"""Names of a model's parts: kept as JSON, and found without weights."""

import dataclasses
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, OpenAIGPTConfig

import tiny_models
from selfrepair import InputError
from selfrepair.model.finding import empty_network, find_parts, parts_of
from selfrepair.model.parts import LayerParts, ModelParts, read_parts, write_parts

Folder = Callable[[str], Path]


@pytest.mark.parametrize("name", tiny_models.SUPPORTED)
def test_parts_come_back_from_their_file(name: str, tiny_folder: Folder, tmp_path: Path) -> None:
    parts = find_parts(tiny_folder(name))
    write_parts(parts, tmp_path / "parts.json")
    assert read_parts(tmp_path / "parts.json") == parts


@pytest.mark.parametrize("name", tiny_models.SUPPORTED)
def test_every_part_is_a_module_of_the_loaded_model(name: str, tiny_folder: Folder) -> None:
    parts = find_parts(tiny_folder(name))
    network = AutoModelForCausalLM.from_pretrained(tiny_folder(name))
    for layer in parts.layers:
        for part in dataclasses.astuple(layer):
            assert part is None or network.get_submodule(part) is not None
        assert layer.mlp_out is not None
        assert layer.attention_post_norm is None
        assert layer.mlp_post_norm is None
    assert network.get_submodule(parts.unembedding) is network.get_output_embeddings()


def test_llamas_parts_are_these(tiny_folder: Folder) -> None:
    parts = find_parts(tiny_folder("llama"))
    assert parts.layers[1] == LayerParts(
        block="model.layers.1",
        attention="model.layers.1.self_attn",
        output_projection="model.layers.1.self_attn.o_proj",
        mlp="model.layers.1.mlp",
        mlp_out="model.layers.1.mlp.down_proj",
    )
    assert (parts.final_norm, parts.unembedding) == ("model.norm", "lm_head")
    assert (parts.architecture, len(parts.layers)) == ("LlamaForCausalLM", 3)
    assert (parts.n_heads, parts.n_key_value_heads, parts.context_length) == (4, 2, 64)
    assert parts.versions == {p: version(p) for p in ("transformers", "transformer_lens")}


def test_an_mlp_without_a_module_is_its_last_map(tiny_folder: Folder) -> None:
    layer = find_parts(tiny_folder("opt")).layers[0]
    assert layer.mlp == layer.mlp_out == "model.decoder.layers.0.fc2"


@pytest.mark.parametrize(
    ("name", "norms"),
    [
        ("gemma2", ("post_attention_layernorm", "post_feedforward_layernorm")),
        ("olmo2", ("post_attention_layernorm", "post_feedforward_layernorm")),
        ("llama", (None, None)),
    ],
)
def test_norms_of_a_sublayers_output_are_found(
    name: str, norms: tuple[str | None, str | None], tiny_folder: Folder
) -> None:
    for index, layer in enumerate(find_parts(tiny_folder(name)).layers):
        expected = tuple(norm and f"model.layers.{index}.{norm}" for norm in norms)
        assert (layer.attention_post_norm, layer.mlp_post_norm) == expected


def test_nothing_is_allocated() -> None:
    network = empty_network(GPT2Config(n_layer=2), name="gpt2", dtype=torch.bfloat16)
    assert all(p.is_meta and p.dtype == torch.bfloat16 for p in network.parameters())
    before = {name: module for name, module in network.named_modules()}
    assert len(parts_of(network, name="gpt2").layers) == 2
    assert before == {name: module for name, module in network.named_modules()}  # as it was


def test_a_model_without_a_final_norm_is_refused(tmp_path: Path) -> None:
    OpenAIGPTConfig(n_layer=1, n_embd=24, n_head=3).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"\(OpenAIGPTLMHeadModel\): no stack .*; use a decoder"):
        find_parts(tmp_path)


def test_a_config_of_no_language_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(InputError, match=r"\(vit\): transformers builds no language model"):
        find_parts(tmp_path)


def test_an_unknown_kind_of_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "abacus"}))
    with pytest.raises(InputError, match="config cannot be read"):
        find_parts(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"layers": [{"block": "h.0"}]}', '{"layers": []}']
)
def test_other_files_are_no_parts(text: str) -> None:
    with pytest.raises(InputError, match="not as written"):
        ModelParts.from_json(text)
