"""How the prompts of a sample are shared out among its sources, and the random numbers of each."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np


def deal_sources(sources: Mapping[str, Mapping[str, Any]], prompts: int) -> list[int]:
    """Which source each prompt comes from, as an index into `sources`, by their weights.

    Each prompt goes to the source that is furthest behind its share, so that the first n prompts have
    the mixture of the whole sample, and prompt i does not depend on how many follow.
    """
    weights = np.array([float(source["weight"]) for source in sources.values()])
    share, dealt, order = weights / weights.sum(), np.zeros(len(weights)), []
    for index in range(prompts):
        order.append(int(np.argmax(share * (index + 1) - dealt)))
        dealt[order[-1]] += 1
    return order


def generator_of(seed: int, name: str) -> np.random.Generator:
    """Random numbers that depend on the seed and a name alone: a new source changes no other's."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
