"""Shards of a sweep: each a checked tensor file, an index that vouches for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .errors import InputError
from .storage import read_json, read_tensors

ERRORS = ("conservation_error", "decomposition_error")


def gather(shards: Sequence[Path], *, relative_to: Path) -> dict[str, Any]:
    """Check every shard and describe the whole sweep.

    Returns:
        files (path and SHA-256 of each shard, in order), prompts, the largest errors in logits,
        total wall time in seconds, and the provenance that all shards share.
    Raises:
        InputError: a shard is damaged, or does not continue the one before it.
    """
    files, prompts, shared = [], 0, None
    worst, seconds = dict.fromkeys(ERRORS, 0.0), 0.0
    for path in shards:
        _, provenance = read_tensors(path)
        if provenance["prompts"][0] != prompts:
            raise InputError(
                f"{path}: starts at prompt {provenance['prompts'][0]} where {prompts} was due; "
                "delete it and run again"
            )
        prompts = provenance["prompts"][1]
        files.append({"path": str(path.relative_to(relative_to)), "sha256": provenance["sha256"]})
        worst = {name: max(worst[name], provenance[name]) for name in ERRORS}
        seconds += provenance["wall_seconds"]
        shared = shared or {key: provenance[key] for key in ("study", "model", "ablation", "dtype")}
    return {**(shared or {}), "files": files, "prompts": prompts, **worst, "wall_seconds": seconds}


def read_sweep(index: Path) -> dict[str, torch.Tensor]:
    """All per-token arrays of a gathered sweep, joined over prompts.

    Raises:
        InputError: a shard is missing, damaged, or not the one that was gathered.
    """
    parts = []
    for entry in read_json(index)["files"]:
        path = index.parent / entry["path"]
        tensors, provenance = read_tensors(path)
        if provenance["sha256"] != entry["sha256"]:
            raise InputError(f"{path}: is not the shard that {index.name} lists; run again")
        parts.append(tensors)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
