"""Running out of memory: halved, gone on with, told; refused when even the least does not fit."""

import gc
import json
import os
import re
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import selfrepair
import tiny_models
from selfrepair import InputError
from selfrepair.measure.feed_back import feed_back
from selfrepair.measure.neurons import neuron_repair
from selfrepair.measure.refeed import refeed
from selfrepair.model import memory
from selfrepair.model.decoder import Decoder
from selfrepair.model.memory import attempt, fit, shape_of_decoder
from selfrepair.model.replay import Recording, Replay, Replayed
from selfrepair.model.sizes import Shape, shape_from
from selfrepair.testing.meta_device import (
    LLAMA_7B,
    DryRun,
    dry_run,
    meta_decoder,
)
from threads import threads

Tiny = Callable[..., Decoder]

TOKENS = tiny_models.random_tokens(7, 12)
DONORS = tiny_models.random_tokens(7, 12, seed=2)


def limit_replays(monkeypatch: pytest.MonkeyPatch, rows: int) -> list[tuple[int, int]]:
    """Let replays of more rows run out of memory; returns (layer, rows) of each that was run."""
    done: list[tuple[int, int]] = []
    whole = Replay.from_layer

    def from_layer(self: Replay, layer: int, **options: Any) -> Replayed:
        count = len(options["residual"])
        if count > rows:
            raise torch.OutOfMemoryError(f"{count} rows")
        done.append((layer, count))
        return whole(self, layer, **options)

    monkeypatch.setattr(Replay, "from_layer", from_layer)
    return done


def limit_recordings(monkeypatch: pytest.MonkeyPatch, prompts: int) -> list[int]:
    done: list[int] = []
    whole = Replay.record

    def record(self: Replay, tokens: torch.Tensor, **options: bool) -> Recording:
        if len(tokens) > prompts:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        done.append(len(tokens))
        return whole(self, tokens, **options)

    monkeypatch.setattr(Replay, "record", record)
    return done


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_a_sweep_halves_its_chunk_and_goes_on(
    count: int, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny("gpt2")
    expected = selfrepair.sweep(model, TOKENS, donors=DONORS)
    done = limit_replays(monkeypatch, 3)
    with threads(count):
        result = selfrepair.sweep(model, TOKENS, donors=DONORS, chunk=14)
    for name, array in expected.arrays().items():
        torch.testing.assert_close(result.arrays()[name], array, rtol=0, atol=1e-5)
    assert sum(rows for _, rows in done) == 7 * 3 * 3  # nothing twice
    assert max(rows for _, rows in done) in (2, 3)
    said = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(
        r"out of memory on cpu with 1\d\d tokens replayed .* going on with \d\d", said[0]
    )
    assert len(said) <= 3


def test_the_clean_pass_halves_its_batch_and_goes_on(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny("llama")
    expected = selfrepair.sweep(model, TOKENS, donors=DONORS)
    done = limit_recordings(monkeypatch, 2)
    result = selfrepair.sweep(model, TOKENS, donors=DONORS, batch=7)
    for name, array in expected.arrays().items():
        torch.testing.assert_close(result.arrays()[name], array, rtol=0, atol=1e-5)
    assert sum(done) == 7
    assert "with 7 prompts recorded at once: going on with 3" in caplog.messages[0]


def test_the_results_of_a_batch_may_be_what_does_not_fit(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, empty = tiny("llama"), torch.empty
    expected = selfrepair.sweep(model, TOKENS, donors=DONORS)

    def limited(*shape: Any, **options: Any) -> torch.Tensor:
        if isinstance(shape[0], tuple) and shape[0][-2] > 4:  # [quantity, layer, head, prompt, …]
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return empty(*shape, **options)

    monkeypatch.setattr(torch, "empty", limited)
    result = selfrepair.sweep(model, TOKENS, donors=DONORS, batch=7)
    for name, array in expected.arrays().items():
        torch.testing.assert_close(result.arrays()[name], array, rtol=0, atol=1e-5)
    assert "with 7 prompts recorded at once: going on with 3" in caplog.messages[0]


@pytest.mark.slow
def test_one_batch_at_a_time_is_held(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model, held, whole = tiny("gpt2"), [], Replay.record

    def record(self: Replay, tokens: torch.Tensor, **options: bool) -> Recording:
        gc.collect()
        assert [ref for ref in held if ref() is not None] == []
        recording = whole(self, tokens, **options)
        held.append(weakref.ref(recording))
        return recording

    monkeypatch.setattr(Replay, "record", record)
    selected = torch.ones(7, 11, 3, 3, dtype=torch.bool)
    heads = [(1, 0), (2, 1)]
    some = selected.flatten(2)[..., :2]
    selfrepair.clean_pass(model, TOKENS, batch=3)
    selfrepair.sweep(model, TOKENS, donors=DONORS, batch=3)
    neuron_repair(model, TOKENS, donors=DONORS, heads=heads, selected=some, batch=3)
    feed_back(model, TOKENS, heads=heads, selected=some, batch=3)
    refeed(model, TOKENS, donors=DONORS, selected=selected, batch=3)
    assert len(held) == 5 * 3


@pytest.mark.parametrize("limit", [limit_replays, limit_recordings])
def test_where_nothing_fits_the_sweep_is_refused(
    limit: Callable[..., object], tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("gpt2")
    limit(monkeypatch, 0)
    with pytest.raises(InputError, match=r"out of memory on cpu with .* the least possible; use a"):
        selfrepair.sweep(model, TOKENS, donors=DONORS, batch=2)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def mistake() -> None:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        attempt(mistake)


# --- planned -----------------------------------------------------------------------------------


def counted_against_planned(
    counted: DryRun, shape: Shape, dtype: str, *, prompts: int, rows: int, positions: int
) -> tuple[float, float]:
    """What the plan says as multiples of what was counted: recording alone, all beside weights."""
    recorded = prompts * shape.recording_bytes(dtype, positions) / counted.recording
    most = max(counted.recording_peak, counted.recording + counted.replay)
    sizes = {"positions": positions, "prompts": prompts, "rows": rows}
    return recorded, shape.working_bytes(dtype, **sizes) / most


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", tiny_models.WIDE)
@pytest.mark.parametrize(("prompts", "rows"), [(1, 1), (1, 40), (16, 8)])
def test_the_plan_holds_what_a_sweep_holds(
    name: str, dtype: str, prompts: int, rows: int, tmp_path: Path
) -> None:
    config = tiny_models.WIDE[name]
    folder = tiny_models.save_model(config, tmp_path)
    model = selfrepair.load_model(folder, device="cpu", dtype=dtype)
    sizes = {"prompts": prompts, "rows": rows, "positions": 64}
    shape = shape_from(config.to_dict())
    assert shape is not None
    recorded, most = counted_against_planned(dry_run(model, **sizes), shape, dtype, **sizes)
    assert 0.98 < recorded < 1.05
    assert 1 <= most < (3 if prompts == 1 else 1.8)  # logits of one prompt count for a lot
    own = shape_of_decoder(model)
    assert own.working_bytes(dtype, **sizes) == pytest.approx(shape.working_bytes(dtype, **sizes))


@pytest.mark.slow
def test_a_7b_model_in_bfloat16_fits_one_80_gb_gpu(tiny: Tiny) -> None:
    model = meta_decoder(LLAMA_7B, like=tiny("llama"), dtype="bfloat16")
    sizes = {"prompts": 32, "rows": 129, "positions": 127}
    counted, shape = dry_run(model, **sizes), shape_from(LLAMA_7B.to_dict())
    assert shape is not None
    assert counted.weights == pytest.approx(shape.weight_bytes("bfloat16", "cuda"), rel=1e-3)
    recorded, most = counted_against_planned(counted, shape, "bfloat16", **sizes)
    assert 0.98 < recorded < 1.05
    assert 1 <= most < 1.3
    total = counted.weights + max(counted.recording_peak, counted.recording + counted.replay)
    assert 20e9 < total < 30e9  # counted: 22.4 GB


def with_free(monkeypatch: pytest.MonkeyPatch, gigabytes: float) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: gigabytes * 1e9)


def test_a_model_that_cannot_fit_is_refused_before_its_weights_are_read(
    tiny_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, 1e-5)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)  # reading would fail
    with pytest.raises(
        InputError, match=r"its 0\.00 B parameters take .* GB in float32, but cpu has"
    ):
        selfrepair.load_model(tiny_folder("gpt2"), device="cpu")


def test_a_sweep_that_cannot_fit_is_refused_before_it_starts(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("gpt2")
    with_free(monkeypatch, 1e-5)
    monkeypatch.setattr(Replay, "record", None)
    with pytest.raises(
        InputError, match=r"one prompt of 11 positions needs .* GB in float32, but cpu"
    ):
        selfrepair.sweep(model, TOKENS, donors=DONORS)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
def test_the_plan_fits_into_what_is_free(
    share: float, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny("llama")
    shape, sizes = shape_of_decoder(model), {"dtype": "float32", "positions": 11}
    free = share * shape.working_bytes(prompts=64, rows=500, **sizes)
    with_free(monkeypatch, free / 1e9)
    batch, chunk = fit(model, 11, batch=64, chunk=500)
    assert shape.working_bytes(prompts=batch, rows=chunk, **sizes) <= free
    assert (batch, chunk) != (64, 500)
    assert f"{batch} prompts recorded and {chunk} rows replayed at once" in caplog.messages[0]
    with_free(monkeypatch, 1.0)
    assert fit(model, 11, batch=64, chunk=500) == (64, 500)
    assert fit(model, 11, batch=8, chunk=None) == (8, 1024 // 11)


# --- really out of memory ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_a_real_lack_of_memory_is_survived(tiny_folder: Callable[[str], Path]) -> None:
    """The allocator itself refuses: the process may have 70 % of what it took."""
    script = f"""
        import json, resource, sys, torch, selfrepair
        sys.path.insert(0, {str(Path(tiny_models.__file__).parent)!r})
        from tiny_models import random_tokens

        def megabytes(key):
            status = dict(line.split(":", 1) for line in open("/proc/self/status"))
            return int(status[key].split()[0]) / 1024

        model = selfrepair.load_model({str(tiny_folder("gpt2"))!r}, device="cpu")
        tokens = random_tokens(400, 60)
        options = {{"ablation": "zero", "batch": 400, "chunk": 1200}}
        selfrepair.sweep(model, tokens[:2], heads=[(0, 0)], **options)
        before, room = megabytes("VmSize"), float(sys.argv[1])
        limit = int((before + room) * 2**20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        heads = [(0, 0), (0, 1), (0, 2)]
        result = selfrepair.sweep(model, tokens, heads=heads, **options)
        repair = float(result.self_repair[..., 0, :].double().sum())
        print(json.dumps({{"repair": repair, "taken": megabytes("VmPeak") - before}}))
    """

    def run(room: float) -> tuple[dict[str, float], str]:
        command = [sys.executable, "-c", textwrap.dedent(script), str(room)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    ample, said = run(4000)
    assert "out of memory" not in said
    scarce, said = run(0.7 * ample["taken"])
    assert "out of memory on cpu with" in said, said
    assert scarce["taken"] <= 0.7 * ample["taken"]
    assert scarce["repair"] == pytest.approx(ample["repair"], abs=1e-2)
