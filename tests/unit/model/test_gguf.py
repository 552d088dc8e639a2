"""GGUF files: converted into the model that they were written from; refused in one line if they cannot be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, dequantize, quantize
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from gguf_files import CONFIGS, TOKENS, tiny_model, write_gguf
from selfrepair.errors import InputError
from selfrepair.model import gguf
from selfrepair.model.gguf import EMBEDDING, ROPE_DIVISORS, UNEMBEDDING, convert_gguf

Q8, Q4, Q5 = (GGMLQuantizationType[name] for name in ("Q8_0", "Q4_0", "Q5_0"))
INPUT = torch.tensor([[1, 5, 9, 12, 40, 30, 7, 33, 4, 20, 11]])


def converted(path: Path, folder: Path) -> PreTrainedModel:
    convert_gguf(path, folder, name="tiny")
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_becomes_the_model_that_it_was_written_from(name: str, tmp_path: Path) -> None:
    written = tiny_model(name)
    path = write_gguf(tmp_path / "tiny.gguf", written)
    model = converted(path, tmp_path / "model")
    saved, expected = tensors_of(tmp_path / "model"), dict(written.named_parameters())
    assert saved.keys() == expected.keys()  # a tied matrix once
    for key, tensor in saved.items():
        assert tensor.dtype == torch.float32
        # Gains of Gemma are stored plus one, which rounds them.
        bound = 1.2e-7 if name == "gemma3" and key.endswith("norm.weight") else 0
        torch.testing.assert_close(tensor, expected[key].data, rtol=0, atol=bound)
    tied = written.config.tie_word_embeddings
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    with torch.no_grad():
        difference = (model(INPUT).logits - written(INPUT).logits).abs().max()
    # The norms' epsilon is stored in float32. Measured: 0 to 3e-6.
    assert difference < 1e-5


def test_its_tokenizer_comes_with_it(tmp_path: Path) -> None:
    converted(write_gguf(tmp_path / "tiny.gguf", tiny_model("llama")), tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokens = ["c", "a", "Ġ", "th", "7"]
    assert tokenizer("ca th7").input_ids == [TOKENS.index(token) for token in tokens]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)


def test_quantised_weights_are_saved_as_the_float32_values_that_they_stand_for(
    tmp_path: Path,
) -> None:
    kinds = {EMBEDDING: Q8, "blk.0.ffn_up.weight": Q4, "blk.1.attn_output.weight": Q5}
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model("llama"), quantised=kinds)
    told = convert_gguf(path, tmp_path / "model", name="tiny")
    saved = tensors_of(tmp_path / "model")
    names = ("embed_tokens", "layers.0.mlp.up_proj", "layers.1.self_attn.o_proj")
    for tensor in GGUFReader(path).tensors:
        if tensor.name in kinds:
            hf_name = names[list(kinds).index(tensor.name)]
            values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type))
            assert torch.equal(saved[f"model.{hf_name}.weight"], values)
    assert told == {
        "architecture": "llama",
        "quantisation": {"Q8_0": 1, "F32": 17, "Q4_0": 1, "Q5_0": 1},
        "tied_embeddings": True,
    }


def test_what_is_quantised_is_rounded_once_more_as_the_file_has_it(tmp_path: Path) -> None:
    """In rows of the file: queries are permuted there. What is not quantised stays as it is."""
    kinds = {EMBEDDING: Q8, "blk.0.attn_q.weight": Q5, "blk.1.ffn_down.weight": Q4}
    written = tiny_model("llama")
    path = write_gguf(tmp_path / "tiny.gguf", written, quantised=kinds)
    told = convert_gguf(path, tmp_path / "model", name="tiny", requantise="Q4_0")
    assert told["requantised"] == {"Q4_0": 3}
    assert told["quantisation"] == {"Q8_0": 1, "F32": 17, "Q5_0": 1, "Q4_0": 1}
    # A file that holds the rounded values themselves becomes the same model.
    values = {
        tensor.name: dequantize(quantize(dequantize(tensor.data, tensor.tensor_type), Q4), Q4)
        for tensor in GGUFReader(path).tensors
        if tensor.name in kinds
    }
    write_gguf(path, written, add=values)
    convert_gguf(path, tmp_path / "expected", name="tiny")
    saved, expected = tensors_of(tmp_path / "model"), tensors_of(tmp_path / "expected")
    assert saved.keys() == expected.keys()
    assert [key for key in saved if not torch.equal(saved[key], expected[key])] == []
    plain = dict(written.named_parameters())
    assert sum(torch.equal(saved[key], plain[key].data) for key in saved) == len(saved) - 3


@pytest.mark.parametrize(
    ("quantised", "requantise", "message"),
    [
        ({}, "Q4_0", "no tensor of the GGUF file is quantised, so none is rounded once more"),
        (
            {"blk.0.ffn_up.weight": Q8},
            "TQ2_0",
            "rows of blk.0.ffn_up.weight have 32 values, no multiple of the 256 of a block of TQ2_0",
        ),
    ],
)
def test_what_cannot_be_rounded_once_more_is_refused_before_anything_is_written(
    quantised: dict, requantise: str, message: str, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model("llama"), quantised=quantised)
    with pytest.raises(InputError) as error:
        convert_gguf(path, tmp_path / "model", name="tiny", requantise=requantise)
    assert str(error.value).startswith(f"models.tiny.requantise: {message}")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "model").exists()


def test_one_matrix_quantised_twice_is_saved_once_as_the_finer(tmp_path: Path) -> None:
    written = tiny_model("llama")
    embedding = {UNEMBEDDING: written.get_input_embeddings().weight.detach().numpy()}
    for finer, coarser in ((EMBEDDING, UNEMBEDDING), (UNEMBEDDING, EMBEDDING)):
        kinds = {finer: Q8, coarser: Q4}
        path = write_gguf(tmp_path / "tiny.gguf", written, quantised=kinds, add=embedding)
        model = converted(path, tmp_path / finer)
        (tensor,) = (t for t in GGUFReader(path).tensors if t.name == finer)
        values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type))
        assert torch.equal(model.lm_head.weight.data, values)
        assert model.lm_head.weight is model.get_input_embeddings().weight
        assert "lm_head.weight" not in tensors_of(tmp_path / finer)


def test_weights_are_saved_in_shards_and_never_held_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = tiny_model("llama")
    path = write_gguf(tmp_path / "tiny.gguf", written)
    monkeypatch.setattr(gguf, "SHARD_BYTES", 12_000)
    model = converted(path, tmp_path / "model")
    files = sorted((tmp_path / "model").glob("*.safetensors"))
    assert len(files) > 5
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    # Only a tensor that is larger itself makes a larger shard, and then is alone in it.
    for file in files:
        shard = load_file(file)
        assert len(shard) == 1 or sum(tensor.nbytes for tensor in shard.values()) <= 12_000
    expected = dict(written.named_parameters())
    assert tensors_of(tmp_path / "model").keys() == expected.keys()
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter, expected[key])


def test_divided_rotary_frequencies_are_kept(tmp_path: Path) -> None:
    """Llama 3.1 and later: llama.cpp has them as a tensor, transformers in the config."""
    rope = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    written, plain = tiny_model("llama", rope_parameters=rope), tiny_model("llama")
    divisors = plain.model.rotary_emb.inv_freq / written.model.rotary_emb.inv_freq
    assert divisors.max() == 8
    path = tmp_path / "tiny.gguf"
    write_gguf(path, written, add={ROPE_DIVISORS: divisors.numpy()})
    model = converted(path, tmp_path / "model")
    with torch.no_grad():
        expected = written(INPUT).logits
        # Measured: 2e-6.
        assert (model(INPUT).logits - expected).abs().max() < 1e-5
        assert (plain(INPUT).logits - expected).abs().max() > 0.01


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"leave_out": "blk.1.ffn_up.weight"}, ["lacks 1 tensors", "layers.1.mlp.up_proj"]),
        ({"add": {"blk.0.odd": np.ones(3)}}, ["1 tensors that are not converted (blk.0.odd)"]),
        ({"metadata": {"llama.rope.scaling.type": "yarn"}}, ["scales rotary positions (yarn)"]),
        ({"metadata": {"split.count": 3}}, ["is one of 3 GGUF files", "--merge"]),
        ({"metadata": {"llama.embedding_length": 16}}, ["has shape", "in a LlamaForCausalLM"]),
    ],
)
def test_a_file_that_is_no_whole_model_is_refused_in_one_line(
    changes: dict, parts: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "tiny.gguf"
    written = tiny_model("llama")
    if "llama.embedding_length" in changes.get("metadata", {}):
        written.config.hidden_size = 16
        changes = {}
    write_gguf(path, written, **changes)
    with pytest.raises(InputError) as error:
        convert_gguf(path, tmp_path / "model", name="tiny")
    message = str(error.value)
    assert message.startswith("models.tiny: ")
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []


def test_what_is_no_gguf_file_or_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model("llama"))
    content = path.read_bytes()
    odd = content.replace(b"llama", b"lxxxa")
    for changed, part in (
        (b"no such file", "cannot be read as a GGUF file"),
        (content[:-5000], "cannot be read as a GGUF file"),
        (odd, "architecture 'lxxxa' cannot be converted"),
    ):
        path.write_bytes(changed)
        with pytest.raises(InputError) as error:
            convert_gguf(path, tmp_path / "model", name="tiny")
        assert part in str(error.value)
        assert "\n" not in str(error.value)


def test_too_little_room_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model("llama"))
    full = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(gguf.shutil, "disk_usage", lambda folder: full)
    with pytest.raises(InputError, match=r"0\.0 GB free; free some, or set `cache`"):
        convert_gguf(path, tmp_path / "model", name="tiny")
    assert not list((tmp_path / "model").iterdir())
