"""Which prompt donates its activations to which in a resample ablation (docs/method.md section 2)."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from ..errors import InputError


def sample_derangement(count: int, generator: torch.Generator) -> Int[Tensor, " prompt"]:
    """A uniformly random permutation of `count` prompts that leaves none in place.

    Raises:
        InputError: fewer than two prompts, of which there is no derangement.
    """
    if count < 2:
        raise InputError(f"resample ablation of {count} prompt(s): no partner; take at least 2")
    places = torch.arange(count)
    while True:  # a permutation is a derangement with probability 1/e
        partners = torch.randperm(count, generator=generator)
        if not bool((partners == places).any()):
            return partners
