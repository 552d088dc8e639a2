"""Constants in place of a head's output: their harm, its gradient, and the one that does the least."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from selfrepair import InputError
from selfrepair.measure.harm import (
    draw_positions,
    mean_divergence,
    record_layers,
    with_constant,
)
from selfrepair.measure.optimal_ablation import Training, optimal_constants
from selfrepair.model.decoder import Decoder
from selfrepair.model.gradients import GradientReplay, differentiable
from selfrepair.testing.hooked_reference import HookedModel
from tiny_models import FLOAT64, POST_NORMS, SUPPORTED, random_tokens

Tiny = Callable[..., Decoder]

PROMPTS, LENGTH = 4, 15
TOKENS = random_tokens(PROMPTS, LENGTH)
HELD_OUT = random_tokens(PROMPTS, LENGTH, seed=5)
POSITIONS = draw_positions(PROMPTS, LENGTH - 1, 6, first_position=1, key=(0, 9))
LAYER, HEAD = 1, 1
QUICK = Training(steps=12, prompts=3, positions=6, rate=0.05, every=3, patience=2)


def loss_of(model: Decoder, constant: Tensor) -> Tensor:
    """Mean KL with a constant in place of the z of one head, from the second position on."""
    replay, prompts = GradientReplay(model), torch.arange(PROMPTS)
    recorded = record_layers(replay, TOKENS, [LAYER])[LAYER]
    replay.learn_arguments_of(LENGTH - 1)
    z = with_constant(
        recorded.z[:, :, HEAD], constant.expand(PROMPTS, -1).contiguous(), first_position=1
    )
    head = torch.full_like(prompts, HEAD)
    final = recorded.final_residual(replay, LAYER, prompts, head, z)
    return mean_divergence(model, recorded.final, final, POSITIONS).mean()


def some_constant(model: Decoder) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(model.d_head, generator=generator).to(model.dtype)


@pytest.mark.parametrize("name", [*SUPPORTED, *POST_NORMS, "nanochat", "granite", "cohere"])
def test_the_harm_is_that_of_the_plain_model(name: str, tiny: Tiny) -> None:
    model = tiny(name)
    constant, hooked = some_constant(model), HookedModel(model)
    clean = hooked.run(TOKENS)
    z = clean.z[LAYER][..., HEAD, :].clone()
    z[:, 1:] = constant
    ablated = hooked.run(TOKENS, z=[(LAYER, HEAD, z)])
    p, q = (hooked.log_probabilities(run) for run in (clean, ablated))
    expected = (p.exp() * (p - q)).sum(-1)[:, :-1].gather(1, POSITIONS).mean()
    assert float(expected) > 1e-3
    loss = loss_of(model, constant).detach()
    assert float(loss) == pytest.approx(float(expected), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("name", FLOAT64)
def test_the_gradient_is_that_of_finite_differences(name: str, tiny: Tiny) -> None:
    model = tiny(name, "float64")
    constant = some_constant(model).requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(model, constant), constant)
    step = 1e-5
    with torch.no_grad():
        changes = torch.eye(model.d_head, dtype=torch.float64) * step
        slopes = torch.stack(
            [
                (loss_of(model, constant + d) - loss_of(model, constant - d)) / (2 * step)
                for d in changes
            ]
        )
    assert float(slopes.abs().max()) > 1e-4
    torch.testing.assert_close(gradient, slopes, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["llama", "gpt2", "pythia", "gemma2"])
def test_packed_products_have_the_gradient_of_plain_ones(name: str, tiny: Tiny) -> None:
    gradients = []
    for dtype in ("float32", "float64"):
        model = tiny(name, dtype)
        constant = some_constant(model)
        if dtype == "float64":
            constant = some_constant(tiny(name)).double()
        constant.requires_grad_()
        with differentiable(model):
            (gradient,) = torch.autograd.grad(loss_of(model, constant), constant)
        gradients.append(gradient.double())
        assert "forward" not in {k for m in model.network.modules() for k in vars(m)}
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


def trained(model: Decoder, heads: list[tuple[int, int]], **more: object) -> object:
    settings = {"mean_z": means_of(model), "training": QUICK, "seed": 3} | more
    return optimal_constants(model, TOKENS, HELD_OUT, heads=heads, **settings)


def means_of(model: Decoder) -> Tensor:
    recorded = GradientReplay(model).record(TOKENS[:, :-1])
    return torch.stack([z.mean((0, 1)) for z in recorded.z])


def test_training_lowers_the_loss_on_prompts_that_it_has_not_seen(tiny: Tiny) -> None:
    model = tiny("llama")
    found = trained(model, [(1, 1), (0, 0), (1, 0)])
    assert (found.loss <= found.start_loss).all()
    assert (found.loss < found.start_loss).any()
    looks = found.curve.nan_to_num(torch.inf)
    assert torch.equal(looks.amin(1), found.loss)
    assert torch.equal(found.curve[:, 0], found.start_loss)
    assert torch.equal(found.steps, looks.argmin(1) * QUICK.every)


def test_heads_of_a_layer_are_trained_as_if_each_were_alone(tiny: Tiny) -> None:
    model = tiny("qwen2", "float64")
    together = trained(model, [(1, 0), (1, 2), (0, 3)], chunk=5)
    for at, head in enumerate([(1, 0), (1, 2), (0, 3)]):
        alone = trained(model, [head])
        torch.testing.assert_close(together.constant[at], alone.constant[0], rtol=1e-9, atol=1e-12)
        assert together.steps[at] == alone.steps[0]


def test_a_training_that_was_cut_off_goes_on_to_the_same_bits(tiny: Tiny) -> None:
    model, heads = tiny("gpt2"), [(1, 1), (0, 0)]
    undisturbed = trained(model, heads)
    kept: dict[int, dict[str, Tensor]] = {}

    class Cut(Exception):
        pass

    def save(layer: int, state: dict[str, Tensor]) -> None:
        kept[layer] = {name: value.clone() for name, value in state.items()}
        if len(kept) == 1 and int(state["step"]) == 6:
            raise Cut

    with pytest.raises(Cut):
        trained(model, heads, save=save)
    resumed = trained(model, heads, load=kept.get)
    for name, expected in undisturbed.arrays().items():
        assert torch.equal(expected.nan_to_num(-1), getattr(resumed, name).nan_to_num(-1)), name


def test_a_head_that_always_says_the_same_has_that_as_its_constant(tiny: Tiny) -> None:
    model = copy.deepcopy(tiny("gpt2", "float64"))
    attention = model.layers[LAYER].block.attn.c_attn
    width, size = model.d_model, model.d_head
    values = slice(2 * width + HEAD * size, 2 * width + (HEAD + 1) * size)
    attention.weight.data[:, values] = 0
    known = attention.bias.data[values].clone()
    means = means_of(model)
    torch.testing.assert_close(means[LAYER, HEAD], known)
    means[LAYER, HEAD] += 0.5
    model.layers[LAYER].value_bias[HEAD] = known - 0.5
    found = optimal_constants(
        model,
        TOKENS,
        HELD_OUT,
        heads=[(LAYER, HEAD)],
        mean_z=means,
        training=Training(steps=400, prompts=4, positions=14, rate=0.02, every=20, patience=20),
    )
    assert float(found.loss) < 1e-6 * float(found.start_loss)
    torch.testing.assert_close(found.constant[0], known, rtol=0, atol=1e-2)


def test_no_heads_have_no_constants(tiny: Tiny) -> None:
    model = tiny("gpt2")
    found = trained(model, [])
    assert {name: len(value) for name, value in found.arrays().items()} == dict.fromkeys(
        found.arrays(), 0
    )
    with pytest.raises(InputError, match=r"heads: \[7, 0\] is not one of"):
        trained(model, [(7, 0)])
