"""10,000 prompts of a tiny model in one process: memory stays flat (`make test-long`)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from selfrepair.files.storage import read_tensors, write_tensors
from selfrepair.measure.clean_pass import clean_shard
from selfrepair.measure.drawing import draw_tokens
from selfrepair.measure.neurons import neuron_repair
from selfrepair.measure.ranking import rank
from selfrepair.measure.token_sweep import sweep_tokens
from selfrepair.model.decoder import Decoder
from selfrepair.model.memory import release_memory
from tiny_models import random_tokens

pytestmark = pytest.mark.long

# oneDNN keeps what it has prepared for each of the last 1,024 shapes of a product, and drawn tokens make new shapes for
# thousands of prompts: some 30 MB more, which is no leak. Read at its first product.
os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = "8"

PROMPTS, SHARD, LENGTH = int(os.environ.get("PROMPTS", "10000")), 50, 64
HEADS = [(1, 0), (2, 1)]
# Growth of its memory over the second half of the run, bytes an hour.
BOUND = 100e6


def growth(hours: list[float], sizes: list[int]) -> float:
    """Slope of a straight line through the second half of the sizes, bytes an hour."""
    half = len(sizes) // 2
    return float(np.polyfit(hours[half:], sizes[half:], 1)[0])


def watched(work: Callable[[int], Any], times: int) -> tuple[list[float], list[int]]:
    """Hours since the start, and resident bytes of the process's own after each call of work(number): without
    files that are mapped into it, libraries mostly, of which the system keeps as much as it likes."""
    process, start = psutil.Process(), time.monotonic()
    hours, sizes = [], []
    for number in range(times):
        work(number)
        release_memory()  # what is free, the allocator may keep
        hours.append((time.monotonic() - start) / 3600)
        memory = process.memory_info()
        sizes.append(memory.rss - getattr(memory, "shared", 0))
    return hours, sizes


def measure_shard(model: Decoder, number: int, folder: Path) -> None:
    """What a study does of a shard: clean pass, sweep of drawn tokens with its map, neurons; written and read."""
    tokens = random_tokens(SHARD, LENGTH, seed=number)
    donors, positions = tokens.roll(1, 0), LENGTH - 1
    clean = clean_shard(model, tokens, candidate_share=0.1, batch=16)
    write_tensors(folder / "clean.safetensors", clean.arrays(), {"shard": number})
    shard, _ = read_tensors(folder / "clean.safetensors")
    drawn = draw_tokens(
        rank([shard], first_position=0).top_token,
        positions=positions,
        prompts=SHARD,
        tokens_per_head=6,
        random_tokens_per_head=3,
        first_position=0,
        seed=number,
    )
    options: dict[str, Any] = {"donors": donors, "batch": 16}
    sweep = sweep_tokens(model, tokens, drawn, mapped=True, **options)
    write_tensors(folder / "sweep.safetensors", sweep.arrays(), {"shard": number})
    selected = drawn.mask(HEADS, prompts=SHARD, positions=positions)
    neurons = neuron_repair(model, tokens, heads=HEADS, selected=selected, **options)
    write_tensors(folder / "neurons.safetensors", neurons.arrays(), {"shard": number})


@pytest.mark.usefixtures("shapes_unchecked")  # as for a user
def test_memory_is_flat(
    tiny: Callable[..., Decoder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny("gpt2")
    hours, sizes = watched(lambda number: measure_shard(model, number, tmp_path), PROMPTS // SHARD)
    found, half = growth(hours, sizes), len(sizes) // 2
    with capsys.disabled():
        print(
            f"\n{PROMPTS:,} prompts in {60 * hours[-1]:.1f} minutes, {sizes[half] / 1e6:.1f} MB in the"
            f" middle, {sizes[-1] / 1e6:.1f} MB at the end, {found / 1e6:+.1f} MB an hour"
        )
    assert found < BOUND


def test_a_leak_is_seen() -> None:
    """100 kB a shard, at a shard in 20 ms, is gigabytes an hour; the same work without keeping it, nothing."""
    kept: list[torch.Tensor] = []

    def work(number: int) -> torch.Tensor:
        time.sleep(0.02)
        return torch.ones(25_000) * number

    assert growth(*watched(lambda number: kept.append(work(number)), 100)) > BOUND
    assert growth(*watched(work, 100)) < BOUND
