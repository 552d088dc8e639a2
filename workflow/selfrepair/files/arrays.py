"""The arrays of a gathered measurement, read without torch: loading that takes longer than their tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .shards import shard_files


def read_arrays(index: Path) -> list[dict[str, Any]]:
    """The arrays of each shard by name, in order of their prompts, as `shards.read_shards` but numpy's.

    Raises:
        InputError: a shard is missing, damaged, or not the one that was gathered.
    """
    from safetensors.numpy import load_file

    return [load_file(path) for path in shard_files(index)]
