"""Iterative inference, E11a and E11b, on one clean pass (docs/method.md section 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..ablations import RESAMPLE
from ..model.decoder import Decoder
from ..model.replay import Replay
from ..vocabulary import Head
from .ablation import check_ablations
from .batches import Progress, Recorded, checked_sizes, for_each_batch
from .feed_back import FeedBack, FeedingBack
from .refeed import Refeed, Refeeding


@torch.no_grad()
def iterative_inference(
    model: Decoder,
    tokens: Int[Tensor, "prompt length"],
    *,
    donors: Int[Tensor, "prompt length"],
    heads: Sequence[Head],
    selected: Bool[Tensor, "prompt position head"],
    top: Bool[Tensor, "prompt position layer all_heads"],
    scalings: Sequence[float] = (1.0, 3.0, 5.0),
    seed: int = 0,
    first_prompt: int = 0,
    first_position: int = 0,
    batch: int | None = None,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> tuple[FeedBack, Refeed]:
    """What `feed_back` and `refeed` give, each prompt recorded once for both.

    Args:
        heads, selected, scalings, seed, first_prompt: as for `feed_back`.
        donors, top, first_position: as for `refeed`, which calls top `selected`.
        batch, chunk, progress: as for `sweep`.
    Raises:
        InputError: as both.
    """
    check_ablations([RESAMPLE.name], tokens, donors, None, model)
    batch, rows = checked_sizes(model, tokens, donors=donors, batch=batch, chunk=chunk)
    replay = Replay(model)
    feeding = FeedingBack(
        model,
        replay,
        heads=heads,
        selected=selected,
        scalings=scalings,
        seed=seed,
        first_prompt=first_prompt,
        most_tokens=rows * (tokens.shape[1] - 1),
    )
    refeeding = Refeeding(model, replay, selected=top, first_position=first_position, rows=rows)

    def measure(recorded: Recorded, report: Progress) -> None:
        feeding.measure(recorded, report)
        refeeding.measure(recorded, report)

    worst = for_each_batch(replay, tokens, measure, donors=donors, batch=batch, progress=progress)
    return feeding.result(conservation_error=worst), refeeding.result(conservation_error=worst)
