"""Each head's top tokens of a whole sample, found from the shards of its clean pass (docs/method.md section 4).

A shard keeps only its candidates (`clean_pass.CleanShard`). The answer is that of `selection.top_tokens` on
all direct effects, or an error that says that the shards kept too few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import InputError
from ..vocabulary import TOP_SHARE
from .batches import tensors_of
from .selection import largest_first, top_count

# The arrays of a shard by name, which are only ever indexed: tensors, or slices of a file.
Arrays = Mapping[str, Any]


@dataclass
class Ranking:
    """What a study keeps of the clean pass over its sample.

    top_token: each head's top tokens, prompt * positions + position, largest direct effect first;
    top_effect: their direct effects, logits; mean_direct_effect: over all positions that may be
    selected; mean_z: over all tokens that the model reads; scale, logit, surprisal: as in
    `clean_pass.CleanPass`.
    """

    top_token: Int[Tensor, "layer head top"]
    top_effect: Float[Tensor, "layer head top"]
    mean_direct_effect: Float[Tensor, "layer head"]
    mean_z: Float[Tensor, "layer head d_head"]
    scale: Float[Tensor, "prompt position"]
    logit: Float[Tensor, "prompt position"]
    surprisal: Float[Tensor, "prompt position"]

    def arrays(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return tensors_of(self)


class ShardFile(Mapping[str, Any]):
    """The arrays of a shard's file by name, of which only what is indexed is read."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self._tensors = safe_open(path, "pt")

    def __getitem__(self, name: str) -> Any:
        return self._tensors.get_slice(name)

    def __iter__(self) -> Any:
        return iter(self._tensors.keys())

    def __len__(self) -> int:
        return len(self._tensors.keys())


def rank(shards: Sequence[Arrays], *, first_position: int, share: float = TOP_SHARE) -> Ranking:
    """Each head's top tokens of a sample, from its shards, a layer at a time.

    Args:
        shards: what `CleanShard.arrays` gave, in the order of their prompts, held or as `ShardFile`.
        first_position: as the shards were given.
    Returns:
        Exactly what `selection.top_tokens` gives of the whole sample's direct effects from first_position
        on; ties go to the earlier token.
    Raises:
        InputError: the sample is too small to have a top token, or a token that a shard did not keep may
            belong to the top tokens.
    """
    scale, logit, surprisal = (
        torch.cat([shard[name][:] for shard in shards]) for name in ("scale", "logit", "surprisal")
    )
    prompts, positions = scale.shape
    tokens = prompts * (positions - first_position)
    count = top_count(tokens, share=share)
    starts = _starts([len(shard["scale"][:]) for shard in shards], positions)
    effect_sum, z_sum, z_tokens = (
        sum(shard[name][:] for shard in shards) for name in ("effect_sum", "z_sum", "z_tokens")
    )
    top = [_top_of_layer(shards, layer, starts, count) for layer in range(len(effect_sum))]
    token, effect = (torch.stack(each) for each in zip(*top, strict=True))
    return Ranking(
        top_token=token,
        top_effect=effect,
        mean_direct_effect=(effect_sum / tokens).to(effect.dtype),
        mean_z=(z_sum / z_tokens).to(effect.dtype),
        scale=scale,
        logit=logit,
        surprisal=surprisal,
    )


def _starts(prompts: Sequence[int], positions: int) -> list[int]:
    """The first token of each shard in the sample, prompt * positions + position."""
    starts = [0]
    for count in prompts[:-1]:
        starts.append(starts[-1] + count * positions)
    return starts


def _top_of_layer(
    shards: Sequence[Arrays], layer: int, starts: Sequence[int], count: int
) -> tuple[Int[Tensor, "head top"], Float[Tensor, "head top"]]:
    """The top tokens of one layer's heads and their direct effects, largest first.

    Candidates of a shard are in the order of the answer, and shards follow each other: a stable sort
    leaves the earlier token of a tie first.
    """
    tokens = [
        shard["candidate"][layer].long() + start
        for shard, start in zip(shards, starts, strict=True)
    ]
    effects = [shard["candidate_effect"][layer] for shard in shards]
    token, effect = torch.cat(tokens, 1), torch.cat(effects, 1)
    values, order = largest_first(effect.T.contiguous(), count)
    top = token.gather(1, order.T)
    left_out = torch.stack([shard["left_out"][layer] for shard in shards])
    _check_complete(layer, left_out, top, values.T, starts, count)
    return top.int(), values.T.contiguous()


def _check_complete(
    layer: int,
    left_out: Float[Tensor, "shard head"],
    top: Int[Tensor, "head top"],
    values: Float[Tensor, "head top"],
    starts: Sequence[int],
    count: int,
) -> None:
    """InputError if a token that a shard left out may belong to a head's top tokens.

    It does if its direct effect is larger than the smallest of them, or equal to it and the token earlier
    than the last of them; it lies in its shard behind the candidates that it is equal to.
    """
    ends = torch.tensor([*starts[1:], torch.iinfo(torch.long).max])[:, None]
    smallest = values[:, -1]
    latest = top.where(values == smallest[:, None], -1).amax(1)
    wrong = (left_out > smallest) | ((left_out == smallest) & (ends <= latest))
    if top.shape[1] < count or bool(wrong.any()):
        head = int(wrong.any(0).int().argmax())
        raise InputError(
            f"clean.candidate_share: layer {layer}, head {head} may have more top tokens in one shard "
            "than it kept as candidates; raise clean.candidate_share"
        )
