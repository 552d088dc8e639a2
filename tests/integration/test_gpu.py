"""What is measured on a GPU is what is measured on the CPU, and nothing there waits for it needlessly.

Everything that measures, of tiny architectures, in float32 without TF32: some of them on a stand-in for a GPU, on
any machine, which also tells whether layers that run wait for it; all of them by `make test-gpu` on a machine
that has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

import selfrepair
from drawn_tokens import drawn_at
from selfrepair.ablations import ABLATIONS, DONORS, MEANS
from selfrepair.measure.clean_pass import clean_pass
from selfrepair.measure.co_ablation import co_ablation
from selfrepair.measure.compared_ablations import compare_ablations
from selfrepair.measure.drawing import draw_tokens
from selfrepair.measure.iterative import iterative_inference
from selfrepair.measure.narrow import narrow_task
from selfrepair.measure.neurons import neuron_repair
from selfrepair.measure.optimal_ablation import Training, optimal_constants
from selfrepair.measure.sweep import sweep
from selfrepair.measure.token_sweep import sweep_tokens
from selfrepair.model.decoder import Decoder
from selfrepair.model.gradients import GradientReplay
from selfrepair.model.replay import Replay
from stand_in_gpu import DEVICE, StandIn, load_on_gpu, stand_in_gpu
from tiny_models import CONFIGS, random_tokens

GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


def gpu(test: Callable[..., None]) -> Callable[..., None]:
    """A test that only a real GPU can pass."""
    for mark in GPU:
        test = mark(test)
    return test


Result = TypeVar("Result")
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


# transformers' GPT-Neo copies the number that it masks with to the device in every layer.
OWN_WAITS = {"GPTNeoForCausalLM": frozenset({"copy to the GPU"})}
# The loop over layers, and a layer in it; a first replay of a length learns before what layers are called with.
WATCHED = ((Replay, "from_layer"), (GradientReplay, "final_residual"), (Replay, "_call"))


@dataclass
class Pair:
    """One model on the CPU and on the GPU; on_gpu: a context that the latter is used in."""

    cpu: Decoder
    gpu: Decoder
    on_gpu: Callable[[], AbstractContextManager[None]]

    def each(self, measure: Callable[[Decoder], Result]) -> tuple[Result, Result]:
        cpu = measure(self.cpu)
        with self.on_gpu(), no_waits(OWN_WAITS.get(self.cpu.architecture, frozenset())):
            return cpu, measure(self.gpu)


@contextmanager
def no_waits(own: frozenset[str]) -> Iterator[None]:
    """Refuses that the stand-in is waited for between the first and the last layer of a replay, where the CPU only
    hands out work; own: what the model's own code waits for there."""
    seen, patch = list[str](), pytest.MonkeyPatch()

    def watched(method: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            before = len(StandIn.waits)
            try:
                return method(*args, **options)
            finally:
                seen.extend(StandIn.waits[before:])

        return run

    for owner, name in WATCHED:
        patch.setattr(owner, name, watched(getattr(owner, name)))
    try:
        yield
    finally:
        patch.undo()
    waits = {*seen} - own
    assert not waits, f"a replay waits: {sorted(waits)}"


STAND_IN = ("gpt2", "pythia", "gpt_neo", "qwen2", "gemma3")
PAIRS = [
    *(pytest.param((name, False), id=name) for name in STAND_IN),
    *(
        pytest.param((name, True), id=f"{name}-cuda", marks=GPU)
        for name in CONFIGS
        if name != "mamba"
    ),
]


@pytest.fixture(scope="module", params=PAIRS)
def pair(request: pytest.FixtureRequest, tiny_folder: Callable[[str], Path]) -> Pair:
    name, real = request.param
    folder = tiny_folder(name)
    cpu = selfrepair.load_model(folder, device="cpu")
    if real:
        return Pair(cpu, selfrepair.load_model(folder, device="cuda"), nullcontext)
    return Pair(cpu, load_on_gpu(folder), stand_in_gpu)


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


def test_clean_pass(pair: Pair) -> None:
    cpu, gpu = pair.each(lambda model: clean_pass(model, TOKENS))
    assert difference(cpu, gpu) < AGREEMENT


@pytest.mark.parametrize("ablation", list(ABLATIONS))
def test_sweep(pair: Pair, ablation: str) -> None:
    asked = options(ablation, pair.cpu)
    cpu, gpu = pair.each(lambda model: sweep(model, TOKENS, batch=4, **asked))
    assert difference(cpu, gpu) < AGREEMENT


@pytest.mark.parametrize("ablation", list(ABLATIONS))
def test_sweep_of_drawn_tokens_and_its_map(pair: Pair, ablation: str) -> None:
    effect = clean_pass(pair.cpu, TOKENS).direct_effect.flatten(0, 1)
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
    asked = options(ablation, pair.cpu)
    cpu, gpu = pair.each(lambda model: sweep_tokens(model, TOKENS, drawn, mapped=True, **asked))
    assert difference(cpu, gpu) < AGREEMENT
    assert difference(cpu.repair_map, gpu.repair_map) < AGREEMENT


def test_neurons(pair: Pair) -> None:
    selected = torch.zeros(PROMPTS, LENGTH - 1, 2, dtype=torch.bool)
    selected[::2, 5::3] = True
    cpu, gpu = pair.each(
        lambda model: neuron_repair(
            model, TOKENS, donors=PARTNERS, heads=[(1, 0), (2, 1)], selected=selected, batch=4
        )
    )
    # Which neuron comes first is open where two do alike; sums over neurons are not.
    for name in ("head_effect", "mlp_effect", "mlp_ablated_effect", "positive_sum", "absolute_sum"):
        assert torch.allclose(getattr(cpu, name), getattr(gpu, name), atol=AGREEMENT)


def test_iterative_inference(pair: Pair) -> None:
    model = pair.cpu
    heads = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    top = torch.zeros(PROMPTS, LENGTH - 1, model.n_layers, model.n_heads, dtype=torch.bool)
    top[1::2, 4::5] = True
    cpu, gpu = pair.each(
        lambda each: iterative_inference(
            each,
            TOKENS,
            donors=PARTNERS,
            heads=heads,
            selected=top.flatten(2),
            top=top,
            batch=4,
        )
    )
    assert difference(cpu[0], gpu[0]) < AGREEMENT
    # Sums of products over prompts: relative to how large they are.
    for field in fields(cpu[1]):
        expected, found = getattr(cpu[1], field.name), getattr(gpu[1], field.name)
        if torch.is_tensor(expected) and expected.is_floating_point() and expected.numel():
            assert torch.allclose(expected, found, rtol=1e-3, atol=AGREEMENT)


PAIRS_OF_HEADS = [((0, 1), (1, 0)), ((0, 0), (2, 1))]
HEADS = [(0, 1), (1, 0), (1, 1)]


def test_co_ablation(pair: Pair) -> None:
    selected = torch.zeros(PROMPTS, LENGTH - 1, len(PAIRS_OF_HEADS), dtype=torch.bool)
    selected[::2, 5::3] = True
    cpu, gpu = pair.each(
        lambda model: co_ablation(
            model, TOKENS, donors=PARTNERS, pairs=PAIRS_OF_HEADS, selected=selected, batch=4
        )
    )
    assert len(cpu.pair) == int(selected.sum())
    assert difference(cpu, gpu) < AGREEMENT


def test_every_ablation(pair: Pair) -> None:
    places = torch.ones(PROMPTS, LENGTH - 1, len(HEADS)).nonzero()[::7]
    layer, head = torch.tensor(HEADS)[places[:, 2]].T
    drawn = drawn_at(torch.stack([places[:, 0], places[:, 1], layer, head], 1))
    mean_z = clean_pass(pair.cpu, TOKENS).mean_z.float()
    cpu, gpu = pair.each(
        lambda model: compare_ablations(
            model,
            TOKENS,
            drawn,
            heads=HEADS,
            donors=PARTNERS,
            mean_z=mean_z,
            constants=2 * mean_z[0, :1].expand(len(HEADS), -1),
            first_position=1,
            batch=4,
        )
    )
    for name, expected in cpu.arrays().items():
        found = gpu.arrays()[name]
        assert found.device.type == "cpu"
        assert float((found.double() - expected.double()).abs().max()) < AGREEMENT, name


def test_optimal_constants(pair: Pair) -> None:
    mean_z = clean_pass(pair.cpu, TOKENS).mean_z.float()
    training = Training(steps=4, prompts=2, positions=4, rate=0.05, every=2, patience=2)
    cpu, gpu = pair.each(
        lambda model: optimal_constants(
            model, TOKENS, PARTNERS, heads=HEADS[:2], mean_z=mean_z, training=training
        )
    )
    assert bool((cpu.loss < cpu.start_loss).any())
    for name, expected in cpu.arrays().items():
        found = gpu.arrays()[name]
        assert found.device.type == "cpu"
        assert torch.allclose(found, expected, atol=AGREEMENT, equal_nan=True), name


def test_narrow_task(pair: Pair) -> None:
    subject = TOKENS[:, 3]
    cpu, gpu = pair.each(
        lambda model: narrow_task(model, TOKENS, donors=PARTNERS, subject=subject, batch=4)
    )
    assert difference(cpu, gpu) < AGREEMENT


def on_a_layer(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
    """A replay's layer that does something to the stream first."""
    call = Replay._call

    def run(replay: Replay, layer: int, stream: torch.Tensor, **options: Any) -> torch.Tensor:
        return call(replay, layer, change(stream), **options)

    return run


WAITING: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "item": lambda stream: stream * float(stream.isfinite().all().item()),
    "cpu": lambda stream: stream.cpu().to(stream.device),
    "to the GPU": lambda stream: stream * torch.ones(stream.shape[-1]).to(stream.device),
    "decision": lambda stream: stream * bool(stream.isfinite().all()),
    "mask": lambda stream: stream + stream[stream > 1e9].sum(),
    "list": lambda stream: stream + 0 * stream[[0]],
}


on_one_stand_in = pytest.mark.parametrize("pair", [("gpt2", False)], indirect=True, ids=["gpt2"])


@on_one_stand_in
@pytest.mark.parametrize("how", WAITING)
def test_a_replay_that_waits_is_noticed(
    how: str, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Replay, "_call", on_a_layer(WAITING[how]))
    with pytest.raises(AssertionError, match="a replay waits"):
        pair.each(lambda model: sweep(model, TOKENS[:2], heads=[(0, 0)], ablation="zero"))


@on_one_stand_in
def test_a_replay_that_mixes_devices_is_noticed(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    ones = torch.ones(pair.cpu.d_model)
    monkeypatch.setattr(Replay, "_call", on_a_layer(lambda stream: stream * ones))
    with pytest.raises(RuntimeError, match="on the CPU, others on the GPU"):
        pair.each(lambda model: sweep(model, TOKENS[:2], heads=[(0, 0)], ablation="zero"))


def test_the_stand_in_refuses_what_a_gpu_refuses() -> None:
    with stand_in_gpu():
        there = torch.arange(4.0).to(DEVICE)
        assert there.device.type == "cuda"
        with pytest.raises(RuntimeError, match="on the CPU, others on the GPU"):
            there + torch.ones(4)
        assert StandIn.waits == ["copy to the GPU"]
        assert there.sum().item() == 6.0
        assert there[there > 1].tolist() == [2.0, 3.0]
        assert there[[3, 1]].tolist() == [3.0, 1.0]
        assert len(StandIn.waits) == 7
        assert type(there.cpu()) is torch.Tensor


@gpu
def test_running_out_of_memory_is_survived(tiny_folder: Callable[[str], Path]) -> None:
    """With a few megabytes allowed, pieces are halved until they fit, and nothing changes."""
    model = selfrepair.load_model(tiny_folder("llama"), device="cuda")
    tokens = random_tokens(48, 60, seed=3)
    asked: dict[str, Any] = {"ablation": "resample", "donors": tokens.roll(1, 0)}
    torch.cuda.reset_peak_memory_stats()
    expected = sweep(model, tokens, batch=48, chunk=4000, **asked)
    failures = torch.cuda.memory_stats()["num_ooms"]
    peak = torch.cuda.max_memory_allocated()
    allowed = 0.6 * peak / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(allowed)
    try:
        found = sweep(model, tokens, batch=48, chunk=4000, **asked)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.cuda.memory_stats()["num_ooms"] > failures
    assert difference(expected, found) < 1e-4


@gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_fewer_bits_stay_near(tiny_folder: Callable[[str], Path], dtype: str) -> None:
    load = partial(selfrepair.load_model, tiny_folder("gpt2"), device="cuda")
    exact, rough = (
        sweep(load(dtype=each), TOKENS, ablation="zero").self_repair for each in ("float32", dtype)
    )
    assert 0 < float((exact - rough).abs().max()) < 1.0


@gpu
def test_tf32_stays_near(tiny_folder: Callable[[str], Path]) -> None:
    model = selfrepair.load_model(tiny_folder("gpt2"), device="cuda")
    exact = sweep(model, TOKENS, ablation="zero").self_repair
    torch.set_float32_matmul_precision("high")
    rough = sweep(model, TOKENS, ablation="zero").self_repair
    assert float((exact - rough).abs().max()) < 0.1
