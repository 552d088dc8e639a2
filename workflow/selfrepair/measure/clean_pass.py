"""The clean pass over a sample or a shard of it: direct effects, final norm scales and mean activations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import InputError
from ..model.decoder import Decoder
from ..model.memory import BatchLimit, attempt
from ..model.replay import Recording, Replay
from .batches import Progress, checked_sizes, clean_batch, stored, tensors_of
from .selection import largest_first
from .workers import side_by_side


@dataclass
class CleanPass:
    """The clean pass over a whole sample; arrays on the CPU.

    direct_effect: [prompt, position, layer, head], logits; scale, logit, surprisal:
    [prompt, position]; mean_z: [layer, head, d_head], mean over all prompts and positions, those
    without a target too (docs/method.md section 2).
    """

    direct_effect: Float[Tensor, "prompt position layer head"]
    scale: Float[Tensor, "prompt position"]
    logit: Float[Tensor, "prompt position"]
    surprisal: Float[Tensor, "prompt position"]
    mean_z: Float[Tensor, "layer head d_head"]
    conservation_error: float


@dataclass
class CleanShard:
    """The clean pass over some prompts of a sample: what `ranking.rank` needs of them.

    candidate: the positions with the head's largest direct effects, prompt * positions + position with
    prompts counted from 0 in the shard, largest first, the earlier one of a tie first;
    candidate_effect: these effects, logits; left_out: the largest effect that is not among them, NaN where
    none was left out; effect_sum: the sum of all direct effects from the first position that may be
    selected on; z_sum: the sum of z over all z_tokens tokens, those without a target too.
    scale, logit, surprisal: as in `CleanPass`.
    """

    candidate: Int[Tensor, "layer head candidate"]
    candidate_effect: Float[Tensor, "layer head candidate"]
    left_out: Float[Tensor, "layer head"]
    effect_sum: Float[Tensor, "layer head"]
    z_sum: Float[Tensor, "layer head d_head"]
    z_tokens: Int[Tensor, " 1"]
    scale: Float[Tensor, "prompt position"]
    logit: Float[Tensor, "prompt position"]
    surprisal: Float[Tensor, "prompt position"]
    conservation_error: float

    def arrays(self) -> dict[str, Tensor]:
        """The tensors by name: what a shard stores."""
        return tensors_of(self)


def clean_pass(
    decoder: Decoder,
    tokens: Int[Tensor, "prompt length"],
    *,
    batch: int | None = None,
    progress: Progress | None = None,
) -> CleanPass:
    """Direct effects, scales and mean activations of a sample, independent of `batch`.

    batch: prompts that are held in memory at once, by default as many as suit the device; on a CPU they
        are run side by side.
    progress: called with the share of the sample that is done since the last call.
    Raises:
        InputError: no prompts, or prompts too short or too long for the model.
        ExactnessError: the conservation law is off by more than the dtype's bound.
    """
    parts, total, worst = _measured(decoder, tokens, batch=batch, progress=progress)
    mean_z = total / _tokens_read(decoder, tokens)
    return CleanPass(*parts, mean_z=mean_z, conservation_error=worst)


def clean_shard(
    decoder: Decoder,
    tokens: Int[Tensor, "prompt length"],
    *,
    candidate_share: float,
    first_position: int = 0,
    batch: int | None = None,
    progress: Progress | None = None,
) -> CleanShard:
    """The clean pass over some prompts of a sample, as little of it as ranking the sample needs.

    Args:
        candidate_share: of the shard's positions, those with each head's largest direct effects are kept.
        first_position: earlier ones are never selected and do not count.
        batch, progress: as for `clean_pass`.
    Raises:
        InputError: as `clean_pass`; candidate_share is not above 0 and at most 1.
        ExactnessError: as `clean_pass`.
    """
    if not 0 < candidate_share <= 1:
        raise InputError(f"candidate_share: {candidate_share}; take one above 0 and at most 1")
    parts, total, worst = _measured(decoder, tokens, batch=batch, progress=progress)
    effect, scale, logit, surprisal = parts
    candidates = [
        _candidates(effect[:, :, layer], candidate_share, first_position)
        for layer in range(effect.shape[2])
    ]
    candidate, value, left_out = (torch.stack(each) for each in zip(*candidates, strict=True))
    return CleanShard(
        candidate=candidate,
        candidate_effect=value,
        left_out=left_out,
        effect_sum=effect[:, first_position:].sum((0, 1), dtype=torch.float64),
        z_sum=total,
        z_tokens=torch.tensor([_tokens_read(decoder, tokens)]),
        scale=scale,
        logit=logit,
        surprisal=surprisal,
        conservation_error=worst,
    )


def _candidates(
    effect: Float[Tensor, "prompt position head"], share: float, first_position: int
) -> tuple[Tensor, Tensor, Tensor]:
    """candidate, candidate_effect and left_out of `CleanShard` of one layer's heads."""
    positions = effect.shape[1]
    flat = effect[:, first_position:].flatten(0, 1)
    count, allowed = max(1, math.ceil(share * len(flat) - 1e-9)), positions - first_position
    values, place = largest_first(flat, min(count + 1, len(flat)))
    left_out = torch.full_like(values[0], torch.nan)
    if len(flat) > count:
        left_out = values[count]
    place, values = place[:count].T.contiguous(), values[:count].T.contiguous()
    token = place // allowed * positions + place % allowed + first_position
    return token.int(), values, left_out


def _tokens_read(decoder: Decoder, tokens: Tensor) -> int:
    """How many tokens the model reads: the last of a prompt may be one more than it can, and is a
    target alone then."""
    return len(tokens) * min(tokens.shape[1], decoder.context_length)


_Arrays = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass
class _Piece:
    """Some prompts: direct_effect, scale, logit and surprisal; the sum of z; the conservation error."""

    arrays: _Arrays
    z_sum: Float[Tensor, "layer head d_head"]
    error: float


def _measured(
    decoder: Decoder, tokens: Tensor, *, batch: int | None, progress: Progress | None
) -> tuple[_Arrays, Float[Tensor, "layer head d_head"], float]:
    """direct_effect, scale, logit and surprisal of all prompts, the sum of z, the conservation error."""
    prompts, _ = checked_sizes(decoder, tokens, batch=batch, chunk=1)
    replay, worst = Replay(decoder), 0.0
    total = torch.zeros(decoder.n_layers, decoder.n_heads, decoder.d_head, dtype=torch.float64)
    parts: list[_Arrays] = []
    with side_by_side(replay, most=min(prompts, len(tokens))) as workers:
        size = prompts // workers.count
        limit = BatchLimit(size, what="prompts recorded", device=decoder.device)
        rows = torch.arange(len(tokens)).tensor_split(-(-len(tokens) // size))

        def work(replay: Replay, part: Tensor) -> tuple[int, list[_Piece]]:
            return int(part[0]), list(_pieces(replay, tokens[part], limit))

        # Whatever ends first: sums are added in the order of the prompts, so that they are the same.
        waiting: dict[int, list[_Piece]] = {}
        due = iter(rows)
        first = int(next(due)[0])
        for done, pieces in workers.map(work, rows):
            waiting[done] = pieces
            while first in waiting:
                for piece in waiting.pop(first):
                    total, worst = total + piece.z_sum, max(worst, piece.error)
                    parts.append(piece.arrays)
                following = next(due, None)
                first = -1 if following is None else int(following[0])
            if progress:
                progress(sum(len(piece.arrays[1]) for piece in pieces) / len(tokens))
    effect, scale, logit, surprisal = (torch.cat(group) for group in zip(*parts, strict=True))
    return (effect, scale, logit, surprisal), total, worst


def _pieces(replay: Replay, tokens: Tensor, limit: BatchLimit) -> Iterator[_Piece]:
    """The prompts together; where they do not fit into memory, in halves."""
    pending = [tokens]
    while pending:
        some = pending.pop()
        if len(some) <= limit.size or len(some) == 1:
            measured = attempt(partial(_piece, replay, some))
            if measured is not None:
                yield measured
                continue
            limit.halve(len(some), least=1)
        pending += reversed(some.tensor_split(2))


@torch.no_grad()
def _piece(replay: Replay, tokens: Tensor) -> _Piece:
    decoder, tokens = replay.decoder, tokens.to(replay.decoder.device)
    # The last token too, where it can be read, for z alone: earlier positions never see it.
    whole = replay.record(tokens[:, : decoder.context_length], to_replay=False)
    z_sum = torch.stack([z.sum((0, 1), dtype=torch.float64).cpu() for z in whole.z])
    clean = clean_batch(replay, tokens, recording=_cut(whole, tokens.shape[1] - 1))
    arrays = (clean.direct_effect, clean.scale, clean.logit, clean.surprisal)
    effect, scale, logit, surprisal = map(stored, arrays)
    return _Piece((effect, scale, logit, surprisal), z_sum, clean.conservation_error)


def _cut(recording: Recording, length: int) -> Recording:
    """The first positions of a recording."""
    shorter = Recording()
    for kind in fields(recording):
        for tensor in getattr(recording, kind.name):
            getattr(shorter, kind.name).append(None if tensor is None else tensor[:, :length])
    return shorter
