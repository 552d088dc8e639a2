"""Sums over prompts that each shard of a measurement keeps: added up, a measurement's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError
from .shards import shard_files


def summed_shards(index: Path, prefix: str) -> dict[str, Any]:
    """The sum over shards of each array whose name starts with the prefix, by its name without it (numpy,
    float64).

    index: the file that `shards.gather` described the measurement in.

    Raises:
        InputError: a shard is missing, damaged, or not the one that was gathered; it has no such arrays.
    """
    from safetensors import safe_open

    total: dict[str, Any] = {}
    for path in shard_files(index):
        with safe_open(path, "np") as tensors:
            names = [name for name in tensors.keys() if name.startswith(prefix)]  # noqa: SIM118
            if not names:
                raise InputError(f"{path}: holds no {prefix}*; delete it and run again")
            for name in names:
                key = name.removeprefix(prefix)
                total[key] = total.get(key, 0) + tensors.get_tensor(name).astype("float64")
    return total
