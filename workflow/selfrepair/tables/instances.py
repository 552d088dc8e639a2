"""Instances, a head on one of its tokens, from the shards of an experiment: a value per instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from .bootstrap import divide, resampled_totals


def part_of(shards: Sequence[Mapping[str, Any]], prefix: str) -> list[dict[str, Any]]:
    """Of each shard the arrays whose name starts with a prefix, by the rest of their name."""
    return [
        {name.removeprefix(prefix): v for name, v in shard.items() if name.startswith(prefix)}
        for shard in shards
    ]


def joined(shards: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The instances of all shards, in their order."""
    return {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}


def resampled_means(
    values: Float[np.ndarray, "instance ..."],
    prompt: Int[np.ndarray, " instance"],
    weights: Float[np.ndarray, "resample prompt"],
) -> Float[np.ndarray, "resample ..."]:
    """Mean over instances in each resample of their prompts; NaN where it drew none of these."""
    totals = resampled_totals(values, prompt, weights)
    counts = resampled_totals(np.ones(len(values)), prompt, weights)
    shape = counts.reshape(-1, *(1,) * (totals.ndim - 1))
    return divide(totals, np.broadcast_to(shape, totals.shape))
