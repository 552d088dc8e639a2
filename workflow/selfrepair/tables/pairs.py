"""Which pairs of heads are ablated together (E16): the strongest of the repair map, and controls. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from ..ablations import RESAMPLE
from ..vocabulary import HEAD, SMALLEST_REPAIR, Head
from .repair_map import Sums, repair_map_table

# What a pair is: among the largest entries of the map, or the same first head with another head of the
# second one's layer, drawn at random.
BACKUP, CONTROL = "backup", "control"
KINDS = (BACKUP, CONTROL)


def choose_pairs(maps: Mapping[str, Sums], *, count: int, seed: int) -> list[dict[str, Any]]:
    """The strongest pairs of the map of resample ablation, and a control for each.

    Of the pairs whose later head backs up the earlier one (mean change of at least SMALLEST_REPAIR logits,
    interval above 0) the `count` with the largest mean, largest first. The control of a pair has the same
    first head and, drawn at random, a head of the second one's layer that does not back it up; where all do,
    there is none.

    Args:
        maps: as for `repair_map_table`.
    Returns:
        first and second, (layer, head) each, and kind: backups, then their controls. None without a map.
    """
    if RESAMPLE.name not in maps:
        return []
    sums = maps[RESAMPLE.name]
    entries = repair_map_table({RESAMPLE.name: sums}, model="").filter(kind=HEAD)
    backs_up = entries.filter(pl.col("mean") >= SMALLEST_REPAIR, pl.col("low") > 0)
    keys = ("layer", "head", "component_layer", "component_head")
    order = backs_up.sort("mean", *keys, descending=[True] + [False] * len(keys))
    known = [(row[:2], row[2:]) for row in order.select(keys).rows()]
    strongest = known[:count]
    pairs = [_pair(first, second, BACKUP) for first, second in strongest]
    generator = np.random.default_rng(seed)
    # A pair is ablated once.
    taken = set(known)
    for first, (layer, _) in strongest:
        heads = range(sums["sums"].shape[1])
        others = [(layer, head) for head in heads if (first, (layer, head)) not in taken]
        if others:
            drawn = others[generator.integers(len(others))]
            taken.add((first, drawn))
            pairs.append(_pair(first, drawn, CONTROL))
    return pairs


def _pair(first: Head, second: Head, kind: str) -> dict[str, Any]:
    return {"first": list(first), "second": list(second), "kind": kind}
