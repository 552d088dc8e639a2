"""Top tokens for tests, from every direct effect of a sample at once."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from selfrepair.measure.selection import top_tokens


def top_mask(
    direct_effect: Float[Tensor, "prompt position head"], *, first_position: int = 0
) -> Bool[Tensor, "prompt position head"]:
    """True at each head's top tokens: the 2 % of positions with its largest clean direct effect.

    first_position: earlier ones are never selected and do not count (`text.prompts.first_position`).
    Raises:
        InputError: the sample is too small to have a top token.
    """
    mask = torch.zeros(direct_effect.shape, dtype=torch.bool)
    allowed = direct_effect[:, first_position:]
    flat = allowed.flatten(0, 1)
    chosen = torch.zeros(flat.shape, dtype=torch.bool).scatter_(0, top_tokens(flat), True)
    mask[:, first_position:] = chosen.reshape(allowed.shape)
    return mask


def top_of_every_head(
    direct_effect: Float[Tensor, "prompt position layer head"], *, first_position: int = 0
) -> Bool[Tensor, "prompt position layer head"]:
    """`top_mask` of every head, a layer at a time: ranking a large sample takes memory.

    Raises:
        InputError: the sample is too small to have a top token.
    """
    layers = direct_effect.unbind(2)
    return torch.stack([top_mask(each, first_position=first_position) for each in layers], 2)
