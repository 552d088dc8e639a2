"""Norms told apart by their values, and how a sublayer's output enters the stream."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers.models.cohere.modeling_cohere import CohereLayerNorm
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.nanochat.modeling_nanochat import NanoChatRMSNorm

from selfrepair import InputError
from selfrepair.model.norms import Norm, Write, norm_of

WIDTH = 24
VALUES = torch.zeros(5, WIDTH)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomised(module: nn.Module) -> nn.Module:
    for seed, parameter in enumerate(module.parameters()):
        parameter.requires_grad_(False).copy_(1 + 0.3 * noise(WIDTH, seed=seed))
    return module


# --- kinds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "centred", "shift"),
    [
        (lambda: nn.LayerNorm(WIDTH), True, 0),
        (lambda: CohereLayerNorm(WIDTH), True, 0),
        (lambda: nn.RMSNorm(WIDTH, eps=1e-6), False, 0),
        (lambda: LlamaRMSNorm(WIDTH), False, 0),
        (lambda: Gemma2RMSNorm(WIDTH), False, 1),
    ],
)
def test_kind_and_gain_are_found(make: Callable[[], nn.Module], centred: bool, shift: int) -> None:
    module = randomised(make())
    norm = norm_of(module, values=VALUES, what="it")
    assert norm.centred is centred
    torch.testing.assert_close(norm.gain, module.weight + shift)
    assert bool(norm.bias.any()) is isinstance(module, nn.LayerNorm)
    x = 3 * noise(7, WIDTH).float() + 1
    torch.testing.assert_close(norm.apply(x), module(x), rtol=0, atol=1e-5)  # measured: 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_norm_without_parameters_has_the_gain_one_of_the_model(dtype: torch.dtype) -> None:
    for module, centred in (
        (NanoChatRMSNorm(), False),
        (nn.LayerNorm(WIDTH, elementwise_affine=False), True),
    ):
        norm = norm_of(module, values=VALUES.to(dtype), what="it")
        assert norm.centred is centred
        assert norm.gain.dtype == norm.bias.dtype == dtype
        assert torch.equal(norm.gain, torch.ones(WIDTH, dtype=dtype))


def test_anything_else_is_refused() -> None:
    with pytest.raises(InputError, match="its last norm is neither a LayerNorm nor an RMSNorm"):
        norm_of(nn.Tanh(), values=VALUES, what="its last norm")


def test_a_norm_without_values_is_taken_to_be_like_a_known_one() -> None:
    known = norm_of(randomised(LlamaRMSNorm(WIDTH)), values=VALUES, what="it")
    module = LlamaRMSNorm(WIDTH).to("meta")
    norm = norm_of(module, values=VALUES.to("meta"), what="it", like=known)
    assert norm.centred is False
    assert norm.gain.is_meta


@pytest.mark.parametrize(("centred", "square"), [(True, 14 / 4), (False, 50 / 4)])
def test_scale_is_its_definition(centred: bool, square: float) -> None:
    norm = Norm(nn.Identity(), torch.ones(4), torch.zeros(4), 0.5, centred)
    found = norm.scale(torch.tensor([[1.0, 2.0, 3.0, 6.0]]))
    torch.testing.assert_close(found, torch.tensor([(square + 0.5) ** 0.5]))


# --- how a sublayer writes ---------------------------------------------------------------------


@pytest.fixture
def write() -> Write:
    """A post-norm in float64, which its module is, too."""
    module = randomised(nn.RMSNorm(WIDTH, eps=0.1).double())
    return Write(norm_of(module, values=VALUES.double(), what="it"))


def test_a_plain_output_is_added_as_it_is() -> None:
    raw, u, plain = noise(2, 3, WIDTH), noise(2, 3, WIDTH, seed=1), Write()
    assert plain.scale(raw) is None
    assert plain.through(u, None) is u
    assert plain.change(raw, u) is u
    assert torch.equal(plain.projection(raw, u, None), (raw * u).sum(-1))


def test_a_multiplier_multiplies() -> None:
    raw, u, write = noise(2, 3, WIDTH), noise(2, 3, WIDTH, seed=1), Write(factor=0.22)
    assert torch.equal(write.through(u, None), 0.22 * u)
    assert torch.equal(write.change(raw, u), 0.22 * u)
    expected = (0.22 * raw * u).sum(-1)
    torch.testing.assert_close(write.projection(raw, u, None), expected, rtol=0, atol=1e-14)


def test_parts_at_the_clean_scale_add_up_to_what_the_norm_gives(write: Write) -> None:
    raw, u = noise(4, WIDTH), noise(4, WIDTH, seed=1)
    assert write.norm is not None
    scale, added = write.scale(raw), write.norm.module(raw)
    parts = write.through(0.3 * raw, scale) + write.through(0.7 * raw, scale)
    torch.testing.assert_close(parts, added, rtol=0, atol=1e-14)
    projected = write.projection(raw, u, scale)
    torch.testing.assert_close(projected, (added * u).sum(-1), rtol=0, atol=1e-13)
    # A direction seen through the norm is the direction that the raw output has to be looked at.
    seen = (raw * write.through(u, scale)).sum(-1)
    torch.testing.assert_close(seen, projected, rtol=0, atol=1e-13)


def test_a_changed_output_is_its_parts_at_the_clean_scale_and_what_the_scale_does(
    write: Write,
) -> None:
    raw, change, u = noise(4, WIDTH), noise(4, WIDTH, seed=1), noise(4, WIDTH, seed=2)
    assert write.norm is not None
    scale = write.scale(raw)
    at_clean_scale, by_scale = write.rescaled(raw + change, u, scale)
    added = write.norm.module(raw + change) - write.norm.module(raw)
    assert torch.equal(write.change(raw, change), added)
    total = at_clean_scale - write.projection(raw, u, scale) + by_scale
    torch.testing.assert_close(total, (added * u).sum(-1), rtol=0, atol=1e-13)  # measured: 4e-15
    assert float(by_scale.abs().min()) > 0.05
    assert not write.rescaled(raw, u, scale)[1].any()


def test_sums_are_taken_in_float32_at_least(write: Write) -> None:
    assert write.norm is not None
    half = Write(Norm(write.norm.module, write.norm.gain.bfloat16(), VALUES[0], 0.1, False))
    raw = noise(3, WIDTH).bfloat16()
    scale = half.scale(raw)
    assert scale is not None
    assert scale.dtype == torch.float32
    assert half.projection(raw, raw, scale).dtype == torch.float32
    assert half.through(raw, scale).dtype == torch.bfloat16
    assert half.rescaled(raw, raw, scale)[1].dtype == torch.float32


def test_a_post_norm_without_its_scale_is_a_mistake(write: Write) -> None:
    raw = noise(3, WIDTH)
    with pytest.raises(AssertionError, match="needs its scale"):
        write.through(raw, None)
    with pytest.raises(AssertionError, match="needs its scale"):
        write.projection(raw, raw, None)
    with pytest.raises(AssertionError, match="needs its clean scale"):
        write.rescaled(raw, raw, None)
