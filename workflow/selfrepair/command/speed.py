"""How fast this machine replays a model: measured on two of its layers, at the size of a sweep's replays."""

from __future__ import annotations

import time

import torch

from ..measure.ablation import ablated_rows
from ..measure.batches import CleanBatch, clean_batch
from ..measure.workers import side_by_side
from ..model.decoder import Decoder
from ..model.replay import Replay
from ..model.sizes import Shape, chunk_tokens

# Positions of a prompt, as in the default study.
POSITIONS = 127


def replay_rate(short: Decoder, shape: Shape, *, seconds: float = 1.5) -> float | None:
    """Operations per second of a sweep's replays on this machine, on all of its threads.

    Args:
        short: `short_decoder` of the model; shape: of the whole model.
        seconds: measured for about so long, after a first replay that does not count.
    Returns:
        None for a model that has nothing to replay (one parallel layer).
    """
    flop = shape.flop_of_head(shape.layers - short.n_layers)
    if not flop:
        return None
    positions = min(POSITIONS, short.context_length)
    rows = max(1, chunk_tokens(short.device.type) // positions)
    replay = Replay(short)
    tokens = torch.arange(positions + 1, device=short.device)[None] % short.vocabulary
    clean = clean_batch(replay, tokens)

    def work(replay: Replay, _: int) -> None:
        _replay_rows(replay, clean, rows)

    with side_by_side(replay) as workers:
        pieces = range(workers.count)
        list(workers.map(work, pieces))
        rounds, elapsed, started = 0, 0.0, _now(short)
        while not rounds or elapsed < seconds:
            list(workers.map(work, pieces))
            rounds, elapsed = rounds + 1, _now(short) - started
    return rounds * len(pieces) * rows * positions * flop / elapsed


@torch.no_grad()
def _replay_rows(replay: Replay, clean: CleanBatch, rows: int) -> None:
    """Zero-ablate heads of the first layer in one prompt and replay all that follows."""
    short = replay.decoder
    head = torch.arange(rows, device=short.device) % short.n_heads
    prompt = torch.zeros_like(head)
    z = clean.recording.z[0][0].transpose(0, 1)
    ablated = ablated_rows(short, clean.recording, 0, head=head, prompt=prompt, delta_z=-z[head])
    ablated.replay(replay, clean.targets.directions[prompt])


def _now(short: Decoder) -> float:
    if short.device.type == "cuda":
        torch.cuda.synchronize(short.device)
    return time.perf_counter()
