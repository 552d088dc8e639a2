"""What a table may be made of: shards without NaN or infinity, whose sums add up (docs/method.md section 3).

What measures checks itself. Here it is checked once more of what is on disk, whoever made it. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ExactnessError
from .archives import restore_shards
from .shards import shard_files
from .storage import read_json, sidecar

# Largest error of a sum, in logits, by number format: those of `model.decoder`, which loads torch.
ERROR_BOUNDS = {"float64": 1e-5, "float32": 1e-3, "bfloat16": 1.0, "float16": 0.25}
# What a number format or storing has cost is told in the sidecar, and has no bound.
UNBOUNDED = ("rounding_error", "precision_error", "scale_rounding")
# Where NaN stands for what could not be measured: a head that is alone in its layer has no other one whose output
# could be fed back in its place (E11).
MAY_LACK = frozenset({"feed_back.new_direct_effect"})
PLACES = ("prompt", "position", "layer", "head", "pair")
REMEDY = "its numbers cannot be trusted: delete it and its sidecar, and measure again"


def restore_measured(index: Path) -> None:
    """Unpack the shards that an index lists, if they are packed, and check their numbers.

    Raises:
        InputError: as `restore_shards` and `shard_files`.
        ExactnessError: as `check_errors` and `check_numbers`.
    """
    restore_shards(index)
    for path in shard_files(index):
        check_errors(sidecar(path), read_json(sidecar(path)))
        check_numbers(path)


def check_errors(path: Path, record: Mapping[str, Any]) -> None:
    """Refuse a record with an error that is NaN or above the bound of its number format (ExactnessError).

    path: where it stands, for the message; a record without a number format has finite errors.
    """
    # A TF32 product has the mantissa of float16.
    dtype = "float16" if record.get("tf32") else record.get("dtype", "")
    for name, value in record.items():
        if not name.endswith("_error") and name not in UNBOUNDED:
            continue
        free = name in UNBOUNDED or not dtype
        bound = math.inf if free else ERROR_BOUNDS[str(dtype)]
        if not (math.isfinite(value) and value <= bound):
            kind = "TF32" if record.get("tf32") else record.get("dtype")
            allowed = "a number" if free else f"{bound:g} logits at most in {kind}"
            raise ExactnessError(f"{path}: {name} is {value:.3g}, not {allowed}; {REMEDY}")


def check_numbers(path: Path) -> None:
    """Refuse a shard with NaN or infinity among its numbers, but for NaN where it means not measured
    (ExactnessError)."""
    from safetensors import safe_open

    with safe_open(path, "np") as arrays:
        for name in arrays.keys():  # noqa: SIM118
            values = arrays.get_tensor(name)
            wrong = np.isinf(values) if name in MAY_LACK else ~np.isfinite(values)
            if wrong.any():
                at = tuple(int(place[0]) for place in wrong.nonzero())
                where = _place(arrays, name, at)
                raise ExactnessError(f"{path}: {name} is {values[at]} at {where}; {REMEDY}")


def _place(arrays: Any, name: str, at: tuple[int, ...]) -> str:
    """Where a number stands: its index, and the instance that this is, if the arrays tell."""
    prefix = name.rpartition(".")[0]
    known = {*arrays.keys()}
    told = []
    for place in PLACES:
        beside = [n for n in (f"{prefix}.{place}", place) if n in known]
        shapes = [arrays.get_slice(n).get_shape() for n in beside]
        if [arrays.get_slice(name).get_shape()[0]] in shapes[:1]:
            told.append(f"{place} {arrays.get_tensor(beside[0])[at[0]]}")
    index = f"[{', '.join(map(str, at))}]"
    return f"{index} ({', '.join(told)})" if told else index
