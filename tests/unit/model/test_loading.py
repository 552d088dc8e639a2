"""Loading: what is refused, with which message, and what a loaded model is."""

import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import GPT2Config, LlamaConfig
from transformers.activations import NewGELUActivation, QuickGELUActivation
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm
from transformers.pytorch_utils import Conv1D

import tiny_models
from selfrepair import InputError, load_model
from selfrepair.model import products, replay
from selfrepair.model.decoder import DTYPES, Decoder
from selfrepair.model.finding import find_parts
from selfrepair.model.packed import (
    PackedLinear,
    PackedMLP,
    fused_norm,
    packed,
    packed_mlp,
)
from selfrepair.testing.reference import hooked

Tiny = Callable[..., Decoder]


def refusal(call: Callable[[], object]) -> str:
    """The message of the InputError that a call raises; it must be one line."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- annotations -------------------------------------------------------------------------------


def test_shape_annotations_are_enforced() -> None:
    torch.testing.assert_close(
        products.dot(torch.ones(2, 3), torch.ones(2, 3)), torch.full((2,), 3.0)
    )
    with pytest.raises(jaxtyping.TypeCheckError):
        products.dot(
            torch.ones(2, 3), torch.ones(4, 2, 3)
        )  # broadcasts: only the annotation objects


def test_shape_annotations_are_enforced_in_dataclasses() -> None:
    sums = torch.ones(2, 3)
    replay.Replayed(torch.ones(2, 3, 4), sums, sums, sums)
    with pytest.raises(jaxtyping.TypeCheckError):
        replay.Replayed(torch.ones(2, 3), sums, sums, sums)


# --- what load_model refuses -------------------------------------------------------------------


def test_missing_directory_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "nothing"
    message = refusal(lambda: load_model(missing))
    assert str(missing) in message
    assert "config.json" in message


def test_directory_without_config_is_named(tmp_path: Path) -> None:
    assert str(tmp_path) in refusal(lambda: load_model(tmp_path))


@pytest.mark.parametrize("name", ["gpt2", "pythia", "llama"])
def test_directory_without_tokenizer_is_named(
    name: str, tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    for part in ("config.json", "model.safetensors"):
        shutil.copy(tiny_folder(name) / part, tmp_path)
    message = refusal(lambda: load_model(tmp_path, device="cpu"))
    assert str(tmp_path) in message
    assert "tokenizer" in message


def test_directory_without_weights_is_named(
    tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    for part in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_folder("gpt2") / part, tmp_path)
    message = refusal(lambda: load_model(tmp_path, device="cpu"))
    assert str(tmp_path) in message
    assert "safetensors" in message


def test_unknown_dtype_lists_the_known_ones(tiny_folder: Callable[[str], Path]) -> None:
    message = refusal(lambda: load_model(tiny_folder("gpt2"), dtype="int8"))
    assert "'int8'" in message
    assert all(name in message for name in DTYPES)


def test_unknown_device_is_named(tiny_folder: Callable[[str], Path]) -> None:
    assert "'abacus'" in refusal(lambda: load_model(tiny_folder("gpt2"), device="abacus"))


def test_absent_cuda_is_not_replaced_silently(
    tiny_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = refusal(lambda: load_model(tiny_folder("gpt2"), device="cuda"))
    assert "'cuda'" in message
    assert "auto" in message


# --- what a loaded model is --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_dtype_is_the_one_asked_for(dtype: str, tiny: Tiny) -> None:
    model = tiny("gpt2", dtype)
    assert model.dtype_name == dtype
    assert {p.dtype for p in model.network.parameters()} == {DTYPES[dtype]}


def test_a_name_is_loaded_as_given(tiny: Tiny, tiny_folder: Callable[[str], Path]) -> None:
    model = tiny("gpt2")
    assert model.name == str(tiny_folder("gpt2"))
    assert model.architecture == "GPT2LMHeadModel"
    assert model.tokenizer("w5 w60")["input_ids"] == [5, 60]


@pytest.mark.parametrize("name", tiny_models.SUPPORTED)
def test_layers_hold_no_copy_of_a_weight(name: str, tiny: Tiny) -> None:
    model = tiny(name, "float64")  # in float32 the linear layers keep a packed copy
    of_network = {p.data_ptr() for p in model.network.parameters()}
    assert len(of_network) >= 9
    assert model.unembedding.data_ptr() in of_network
    for layer in model.layers:
        assert layer.w_o.data_ptr() in of_network
        assert layer.neurons is not None
        assert layer.neurons.w_out.data_ptr() in of_network


@pytest.mark.parametrize("name", ["gpt2", "pythia", "llama"])
def test_packed_linear_layers_keep_one_copy_of_a_weight(name: str, tiny: Tiny) -> None:
    model = tiny(name)
    if not any(isinstance(m, PackedLinear) for m in model.network.modules()):
        pytest.skip("this machine packs nothing")
    for layer in model.layers:
        assert isinstance(layer.output_projection, PackedLinear)
        assert layer.w_o.data_ptr() == layer.output_projection.weight.data_ptr()


@pytest.mark.slow
def test_parts_that_are_given_are_not_looked_for(tiny_folder: Callable[[str], Path]) -> None:
    """TransformerLens, slow to import, is not needed then."""
    folder = tiny_folder("gpt2")
    script = f"""
        import json, sys
        import selfrepair
        from selfrepair.model.parts import ModelParts
        parts = ModelParts.from_json(sys.stdin.read())
        model = selfrepair.load_model({str(folder)!r}, device="cpu", parts=parts)
        print(model.n_heads, "transformer_lens" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        input=find_parts(folder).to_json(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["3", "False"], done.stderr


def test_parts_of_another_model_are_refused(tiny_folder: Callable[[str], Path]) -> None:
    parts = find_parts(tiny_folder("pythia"))
    message = refusal(lambda: load_model(tiny_folder("gpt2"), device="cpu", parts=parts))
    assert "it has no gpt_neox." in message
    assert "find them again" in message


def test_network_wants_no_gradients(tiny: Tiny) -> None:
    model = tiny("gpt2", "float64")
    assert not any(p.requires_grad for p in model.network.parameters())
    assert not model.network.training


@pytest.mark.parametrize("name", tiny_models.SUPPORTED)
def test_plain_network_computes_the_hooked_models_logits(name: str, tiny: Tiny) -> None:
    model = tiny(name)
    tokens = tiny_models.random_tokens(3, 12)
    with torch.no_grad():
        own, expected = model.network(tokens).logits, hooked(model)(tokens)
    # Measured: 6e-6 (qwen3), logits up to 10.
    torch.testing.assert_close(own, expected, rtol=0, atol=5e-5)


# --- packed linear layers ----------------------------------------------------------------------

TOKEN_COUNTS = [(1,), (7,), (1024,), (1500,), (3, 5)]


@pytest.fixture
def packing() -> None:
    if not isinstance(packed(nn.Linear(2, 2)), PackedLinear):
        pytest.skip("this machine packs nothing")


@pytest.mark.usefixtures("packing")
@pytest.mark.parametrize("shape", TOKEN_COUNTS)
@pytest.mark.parametrize("bias", [True, False])
def test_packed_linear_is_linear(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(24, 40, bias=bias), torch.randn(*shape, 24)
    twin = packed(layer)
    assert isinstance(twin, PackedLinear)
    expected = functional.linear(x, layer.weight, layer.bias).detach()
    torch.testing.assert_close(twin(x).detach(), expected, rtol=0, atol=1e-5)  # measured: 4e-7


@pytest.mark.usefixtures("packing")
@pytest.mark.parametrize("shape", TOKEN_COUNTS)
def test_packed_conv1d_is_conv1d(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer, x = Conv1D(40, 24), torch.randn(*shape, 24)
    nn.init.normal_(layer.weight), nn.init.normal_(layer.bias)
    twin = packed(layer)
    assert isinstance(twin, PackedLinear)
    assert (twin.in_features, twin.out_features) == (24, 40)
    expected = functional.linear(x, layer.weight.T, layer.bias).detach()
    torch.testing.assert_close(twin(x).detach(), expected, rtol=0, atol=1e-5)  # measured: 3e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layer", [nn.Linear(4, 6), Conv1D(6, 4)])
def test_only_float32_is_packed(dtype: torch.dtype, layer: nn.Module) -> None:
    layer = layer.to(dtype)
    assert packed(layer) is layer


def test_other_layers_are_not_packed() -> None:
    layer = nn.Embedding(4, 6)
    assert packed(layer) is layer


def gated_mlp(activation: nn.Module) -> nn.Module:
    """A gated MLP as Hugging Face writes it."""
    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=24, intermediate_size=40, num_attention_heads=4, mlp_bias=True)
    module = LlamaMLP(config).requires_grad_(False)
    module.act_fn = activation
    for name in ("gate_proj", "up_proj", "down_proj"):
        setattr(module, name, packed(getattr(module, name)))
    return module


@pytest.mark.usefixtures("packing")
@pytest.mark.parametrize("shape", [(24,), (3, 24), (2, 5, 24), (0, 7, 24)])
def test_a_packed_mlp_takes_any_shape(shape: tuple[int, ...]) -> None:
    module = gated_mlp(nn.SiLU())
    twin = packed_mlp(module)
    assert isinstance(twin, PackedMLP)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(twin(x), module(x), atol=1e-6)


def two_layer_mlp(activation: nn.Module) -> nn.Module:
    """An MLP as Hugging Face's GPT-2 writes it."""
    torch.manual_seed(0)
    module = GPT2MLP(40, GPT2Config(n_embd=24)).requires_grad_(False).eval()
    module.act = activation
    for name in ("c_fc", "c_proj"):
        projection = getattr(module, name)
        nn.init.normal_(projection.weight), nn.init.normal_(projection.bias)
        setattr(module, name, packed(projection))
    return module


@pytest.mark.usefixtures("packing")
@pytest.mark.parametrize("make", [gated_mlp, two_layer_mlp])
@pytest.mark.parametrize(
    ("activation", "fused"),
    [
        (NewGELUActivation(), ("gelu", "tanh")),
        (nn.GELU("tanh"), ("gelu", "tanh")),
        (nn.GELU(), ("gelu", "none")),
        (nn.SiLU(), ("swish", "")),
        (nn.ReLU(), ("relu", "")),
    ],
)
def test_a_packed_mlp_has_the_activation_of_the_module(
    make: Callable[[nn.Module], nn.Module], activation: nn.Module, fused: tuple[str, str]
) -> None:
    module = make(activation)
    twin = packed_mlp(module)
    assert isinstance(twin, PackedMLP)
    assert twin._activation == fused
    x = 3 * torch.randn(50, 24, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(twin(x), module(x), rtol=0, atol=1e-4)  # measured: 3e-5 of 90


@pytest.mark.usefixtures("packing")
@pytest.mark.parametrize("make", [gated_mlp, two_layer_mlp])
@pytest.mark.parametrize("activation", [nn.Tanh(), nn.ELU(), QuickGELUActivation()])
def test_an_mlp_with_another_activation_stays_as_it_is(
    make: Callable[[nn.Module], nn.Module], activation: nn.Module
) -> None:
    module = make(activation)
    assert packed_mlp(module) is module


@pytest.mark.usefixtures("packing")
def test_a_block_with_more_than_projections_is_no_mlp() -> None:
    module = two_layer_mlp(nn.ReLU())
    module.norm = nn.LayerNorm(24)
    assert packed_mlp(module) is module


def test_a_fused_norm_computes_the_same_and_another_norm_stays_as_it_is() -> None:
    norm = LlamaRMSNorm(24, eps=0.1).requires_grad_(False)
    norm.weight.copy_(torch.randn(24, generator=torch.Generator().manual_seed(0)))
    twin = fused_norm(norm)
    assert isinstance(twin, nn.RMSNorm)
    assert twin.weight.data_ptr() == norm.weight.data_ptr()
    x = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(twin(x), norm(x), atol=1e-6)
    shifted = LlamaRMSNorm(24)
    shifted.forward = lambda x: 2 * x
    assert fused_norm(shifted) is shifted
    double = LlamaRMSNorm(24).double()
    assert fused_norm(double) is double
