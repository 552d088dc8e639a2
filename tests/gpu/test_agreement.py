"""What is measured on a GPU is what is measured on the CPU: `make test-gpu`, on a machine that has one.

Skipped elsewhere. Of each tiny architecture the clean pass, sweeps of all and of drawn tokens, neurons and
iterative inference, in float32 without TF32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import selfrepair
from selfrepair.ablations import ABLATIONS, DONORS, MEANS
from selfrepair.measure.clean_pass import clean_pass
from selfrepair.measure.drawing import draw_tokens
from selfrepair.measure.iterative import iterative_inference
from selfrepair.measure.neurons import neuron_repair
from selfrepair.measure.sweep import sweep
from selfrepair.measure.token_sweep import sweep_tokens
from selfrepair.model.decoder import Decoder
from tiny_models import CONFIGS, random_tokens

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

PROMPTS, LENGTH = 6, 20
TOKENS = random_tokens(PROMPTS, LENGTH)
PARTNERS = TOKENS.roll(1, 0)
# Logits. Weights of these models are drawn wide, so their logits are large.
AGREEMENT = 1e-3


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(scope="module", params=[name for name in CONFIGS if name != "mamba"])
def pair(request: pytest.FixtureRequest, tiny_folder: Callable[[str], Path]) -> tuple[Any, Any]:
    """One model on the CPU and on the GPU."""
    load = partial(selfrepair.load_model, tiny_folder(request.param))
    return load(device="cpu"), load(device="cuda")


def difference(cpu: Any, gpu: Any) -> float:
    """The largest difference of two results' numbers; all of them lie on the CPU."""
    worst = 0.0
    for field in fields(cpu):
        expected, found = getattr(cpu, field.name), getattr(gpu, field.name)
        if torch.is_tensor(expected) and expected.is_floating_point() and expected.numel():
            assert found.device.type == "cpu"
            assert torch.equal(expected.isnan(), found.isnan())
            worst = max(worst, float((expected - found).nan_to_num().abs().max()))
    return worst


def options(ablation: str, model: Decoder) -> dict[str, Any]:
    needs = ABLATIONS[ablation].needs
    return {
        "ablation": ablation,
        "donors": PARTNERS if DONORS in needs else None,
        "mean_z": clean_pass(model, TOKENS).mean_z if MEANS in needs else None,
    }


def test_clean_pass(pair: tuple[Decoder, Decoder]) -> None:
    cpu, gpu = (clean_pass(model, TOKENS) for model in pair)
    assert difference(cpu, gpu) < AGREEMENT


@pytest.mark.parametrize("ablation", list(ABLATIONS))
def test_sweep(pair: tuple[Decoder, Decoder], ablation: str) -> None:
    asked = options(ablation, pair[0])
    cpu, gpu = (sweep(model, TOKENS, batch=4, **asked) for model in pair)
    assert difference(cpu, gpu) < AGREEMENT


@pytest.mark.parametrize("ablation", list(ABLATIONS))
def test_sweep_of_drawn_tokens_and_its_map(pair: tuple[Decoder, Decoder], ablation: str) -> None:
    effect = clean_pass(pair[0], TOKENS).direct_effect.flatten(0, 1)
    top = effect.topk(8, 0).indices.permute(1, 2, 0).contiguous().int()
    drawn = draw_tokens(
        top,
        positions=LENGTH - 1,
        prompts=PROMPTS,
        tokens_per_head=4,
        random_tokens_per_head=3,
        first_position=0,
        seed=0,
    )
    asked = options(ablation, pair[0])
    cpu, gpu = (sweep_tokens(model, TOKENS, drawn, mapped=True, **asked) for model in pair)
    assert difference(cpu, gpu) < AGREEMENT
    assert difference(cpu.repair_map, gpu.repair_map) < AGREEMENT


def test_neurons(pair: tuple[Decoder, Decoder]) -> None:
    selected = torch.zeros(PROMPTS, LENGTH - 1, 2, dtype=torch.bool)
    selected[::2, 5::3] = True
    cpu, gpu = (
        neuron_repair(
            model, TOKENS, donors=PARTNERS, heads=[(1, 0), (2, 1)], selected=selected, batch=4
        )
        for model in pair
    )
    # Which neuron comes first is open where two do alike; sums over neurons are not.
    for name in ("head_effect", "mlp_effect", "mlp_ablated_effect", "positive_sum", "absolute_sum"):
        assert torch.allclose(getattr(cpu, name), getattr(gpu, name), atol=AGREEMENT)


def test_iterative_inference(pair: tuple[Decoder, Decoder]) -> None:
    model = pair[0]
    heads = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    top = torch.zeros(PROMPTS, LENGTH - 1, model.n_layers, model.n_heads, dtype=torch.bool)
    top[1::2, 4::5] = True
    cpu, gpu = (
        iterative_inference(
            each,
            TOKENS,
            donors=PARTNERS,
            heads=heads,
            selected=top.flatten(2),
            top=top,
            batch=4,
        )
        for each in pair
    )
    assert difference(cpu[0], gpu[0]) < AGREEMENT
    # Sums of products over prompts: relative to how large they are.
    for field in fields(cpu[1]):
        expected, found = getattr(cpu[1], field.name), getattr(gpu[1], field.name)
        if torch.is_tensor(expected) and expected.is_floating_point() and expected.numel():
            assert torch.allclose(expected, found, rtol=1e-3, atol=AGREEMENT)


def test_running_out_of_memory_is_survived(tiny_folder: Callable[[str], Path]) -> None:
    """With a few megabytes allowed, pieces are halved until they fit, and nothing changes."""
    model = selfrepair.load_model(tiny_folder("llama"), device="cuda")
    tokens = random_tokens(48, 60, seed=3)
    asked: dict[str, Any] = {"ablation": "resample", "donors": tokens.roll(1, 0)}
    expected = sweep(model, tokens, batch=48, chunk=4000, **asked)
    peak = torch.cuda.max_memory_allocated()
    allowed = 0.6 * peak / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(allowed)
    try:
        found = sweep(model, tokens, batch=48, chunk=4000, **asked)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.cuda.memory_stats()["num_ooms"] > 0
    assert difference(expected, found) < 1e-4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_fewer_bits_stay_near(tiny_folder: Callable[[str], Path], dtype: str) -> None:
    load = partial(selfrepair.load_model, tiny_folder("gpt2"), device="cuda")
    exact, rough = (
        sweep(load(dtype=each), TOKENS, ablation="zero").self_repair for each in ("float32", dtype)
    )
    assert 0 < float((exact - rough).abs().max()) < 1.0


def test_tf32_stays_near(tiny_folder: Callable[[str], Path]) -> None:
    model = selfrepair.load_model(tiny_folder("gpt2"), device="cuda")
    exact = sweep(model, TOKENS, ablation="zero").self_repair
    torch.set_float32_matmul_precision("high")
    rough = sweep(model, TOKENS, ablation="zero").self_repair
    assert float((exact - rough).abs().max()) < 0.1
