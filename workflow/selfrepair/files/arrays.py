"""The arrays of a gathered measurement, read without torch: loading that takes longer than their tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .shards import shard_files


def read_arrays(index: Path, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The arrays of each shard by name, in order of their prompts, as `shards.read_shards` but numpy's.

    names: of the arrays that are read; by default all.

    Raises:
        InputError: a shard is missing, damaged, or not the one that was gathered.
    """
    from safetensors import safe_open

    found = []
    for path in shard_files(index):
        with safe_open(path, "np") as arrays:
            found.append({name: arrays.get_tensor(name) for name in names or arrays.keys()})
    return found
