"""Running out of memory: halved, gone on with, told; refused when even the least does not fit."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import selfrepair
import tiny_models
from selfrepair import InputError
from selfrepair.memory import attempt
from selfrepair.models import Decoder
from selfrepair.replay import Recording, Replay, Replayed

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

    def record(self: Replay, tokens: torch.Tensor) -> Recording:
        if len(tokens) > prompts:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        done.append(len(tokens))
        return whole(self, tokens)

    monkeypatch.setattr(Replay, "record", record)
    return done


@pytest.mark.parametrize("threads", [1, 3])
def test_a_sweep_halves_its_chunk_and_goes_on(
    threads: int, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, before = tiny("gpt2"), torch.get_num_threads()
    expected = selfrepair.sweep(model, TOKENS, donors=DONORS)
    done = limit_replays(monkeypatch, 3)
    try:
        torch.set_num_threads(threads)
        result = selfrepair.sweep(model, TOKENS, donors=DONORS, chunk=14)
    finally:
        torch.set_num_threads(before)
    for name, array in expected.arrays().items():
        torch.testing.assert_close(result.arrays()[name], array, rtol=0, atol=1e-5)
    assert sum(rows for _, rows in done) == 7 * 3 * 3  # nothing twice
    assert max(rows for _, rows in done) in (2, 3)
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "out of memory on cpu with 121 tokens replayed at once: going on with 60"
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


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_a_real_lack_of_memory_is_survived(tiny_folder: Callable[[str], Path]) -> None:
    """The allocator itself refuses: the replay asks for more than the process may have."""
    script = f"""
        import resource, sys, torch, selfrepair
        sys.path.insert(0, {str(Path(tiny_models.__file__).parent)!r})
        from tiny_models import random_tokens
        model = selfrepair.load_model({str(tiny_folder("gpt2"))!r}, device="cpu")
        tokens = random_tokens(400, 60)
        selfrepair.sweep(model, tokens[:2], ablation="zero", heads=[(0, 0)])
        pages = int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + {{room}} * 2**20,) * 2)
        result = selfrepair.sweep(
            model, tokens, ablation="zero", heads=[(0, 0), (0, 1)], batch=400, chunk=800
        )
        print(float(result.self_repair[..., 0, :2].double().sum()))
    """
    done = {}
    for room in (4000, 60):
        command = [sys.executable, "-c", textwrap.dedent(script).replace("{room}", str(room))]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        done[room] = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment
        )
    ample, scarce = done[4000], done[60]
    assert "out of memory" not in ample.stderr
    assert "out of memory on cpu with" in scarce.stderr, scarce.stderr
    assert scarce.returncode == 0, scarce.stderr
    assert float(scarce.stdout) == pytest.approx(float(ample.stdout), abs=1e-2)
