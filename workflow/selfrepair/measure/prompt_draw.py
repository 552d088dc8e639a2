"""Prompts drawn at random for each head; a sweep measures its top tokens in them, all or some (docs/method.md section 4)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ..errors import InputError

# Part of the seed of each draw; tokens are drawn with 0 and 1 (measure/drawing.py).
_OF_PROMPTS = 2


def tokens_of_drawn_prompts(
    top_token: Int[Tensor, "layer head top"],
    *,
    positions: int,
    prompts: int,
    prompts_per_head: int,
    seed: int,
) -> Int[Tensor, "layer head top"]:
    """The top tokens in prompts that are drawn for each head, uniformly and without replacement, from those that hold
    a top token of it; in place of every other token stands one that lies in no prompt: prompts * positions.

    A replayed prompt costs the same for one of its tokens as for all of them, so drawn prompts give more tokens, and
    narrower intervals, than as many drawn tokens. What is drawn of a head depends on the seed, the head and the prompts
    that hold its top tokens, on nothing else.

    Args:
        top_token: each head's top tokens in the ranking sample, prompt * positions + position.
        positions: measured ones of a prompt; prompts: only the first so many of the sample are drawn from.
        prompts_per_head: prompts drawn of each head, or all that hold a top token of it where there are fewer.
    Raises:
        InputError: fewer than one prompt a head.
    """
    if prompts_per_head < 1:
        raise InputError(f"prompts_per_head: {prompts_per_head}; take at least 1")
    nowhere = prompts * positions
    found = torch.full_like(top_token, nowhere)
    for layer, head in np.ndindex(*top_token.shape[:2]):
        prompt = top_token[layer, head].numpy() // positions
        pool = np.unique(prompt[prompt < prompts])
        key = np.random.SeedSequence(seed, spawn_key=(layer, head, _OF_PROMPTS))
        count = min(prompts_per_head, len(pool))
        drawn = np.random.default_rng(key).choice(pool, count, replace=False, shuffle=False)
        kept = torch.from_numpy(np.isin(prompt, drawn))
        found[layer, head][kept] = top_token[layer, head][kept]
    return found
