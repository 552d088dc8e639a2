"""Which prompt donates its activations to which in a resample ablation (docs/method.md section 2)."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from ..errors import InputError

# Partners are within blocks of so many consecutive prompts, so that a batch that holds whole blocks is
# recorded once: its prompts' partners are in it.
BLOCK = 16


def sample_derangement(count: int, generator: torch.Generator) -> Int[Tensor, " prompt"]:
    """A random permutation of `count` prompts that leaves none in place, uniform within blocks of 16.

    Blocks are of consecutive prompts; the last may be shorter, and takes a single prompt left over.
    Raises:
        InputError: fewer than two prompts, of which there is no derangement.
    """
    if count < 2:
        raise InputError(f"resample ablation of {count} prompt(s): no partner; take at least 2")
    starts = list(range(0, count - 1, BLOCK))
    ends = [*starts[1:], count]
    blocks = zip(starts, ends, strict=True)
    return torch.cat([start + _derangement(end - start, generator) for start, end in blocks])


def _derangement(count: int, generator: torch.Generator) -> Int[Tensor, " prompt"]:
    places = torch.arange(count)
    while True:  # a permutation is a derangement with probability 1/e
        partners = torch.randperm(count, generator=generator)
        if not bool((partners == places).any()):
            return partners
