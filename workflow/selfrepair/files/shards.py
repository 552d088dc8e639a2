"""Shards of a measurement: each a checked tensor file, an index that vouches for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import torch

from ..errors import InputError
from .storage import read_json, verify

# What all shards of a measurement have in common.
_SHARED = (
    "study",
    "model",
    "model_commit",
    "ablation",
    "tokens",
    "dtype",
    "tf32",
    "heads",
    "scalings",
    "n_neurons",
)


def gather(shards: Sequence[Path], *, relative_to: Path) -> dict[str, Any]:
    """Check every shard and describe the whole measurement.

    Returns:
        files (path and SHA-256 of each shard, in order), prompts, the largest errors in logits
        (keys that end with `_error`), total wall time in seconds, and the provenance that all
        shards share.
    Raises:
        InputError: a shard is damaged, or does not continue the one before it.
    """
    files, records, prompts, shared = [], [], 0, None
    seconds = 0.0
    for path in shards:
        provenance = verify(path)
        if provenance["prompts"][0] != prompts:
            raise InputError(
                f"{path}: starts at prompt {provenance['prompts'][0]} where {prompts} was due; "
                "delete it and run again"
            )
        prompts = provenance["prompts"][1]
        files.append({"path": str(path.relative_to(relative_to)), "sha256": provenance["sha256"]})
        records.append(provenance)
        seconds += provenance["wall_seconds"]
        own = {key: provenance[key] for key in _SHARED if key in provenance}
        shared = own if shared is None else shared
        for key in _SHARED:
            if own.get(key) != shared.get(key):
                raise InputError(
                    f"{path}: its {key} is {own.get(key)}, that of the first shard {shared.get(key)}; "
                    "delete both and run again"
                )
    worst = worst_errors(records)
    return {**(shared or {}), "files": files, "prompts": prompts, **worst, "wall_seconds": seconds}


def worst_errors(records: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The largest of each error (keys that end with `_error`, in logits) over provenance records."""
    worst: dict[str, float] = {}
    for record in records:
        for name, value in record.items():
            if name.endswith("_error"):
                worst[name] = max(worst.get(name, 0.0), value)
    return worst


def shard_files(index: Path) -> list[Path]:
    """The files of a gathered measurement, in order of their prompts, content checked.

    Raises:
        InputError: a shard is missing, damaged, or not the one that was gathered.
    """
    paths = []
    for entry in read_json(index)["files"]:
        path = index.parent / entry["path"]
        if verify(path)["sha256"] != entry["sha256"]:
            raise InputError(f"{path}: is not the shard that {index.name} lists; run again")
        paths.append(path)
    return paths


def read_shards(index: Path) -> list[dict[str, torch.Tensor]]:
    """The arrays of each shard of a gathered measurement, in order (raises as `shard_files`)."""
    from safetensors.torch import load_file

    return [load_file(path) for path in shard_files(index)]


def read_sweep(index: Path) -> dict[str, torch.Tensor]:
    """All arrays of a gathered measurement, joined over prompts (raises as `shard_files`)."""
    parts = read_shards(index)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


class SweptLayers(Sequence[dict[str, torch.Tensor]]):
    """A gathered sweep, read one layer at a time: a large sample does not fit into memory at once.

    Item l holds the arrays of layer l by name, [prompt, position, head].
    """

    def __init__(self, index: Path) -> None:
        self._files = shard_files(index)
        self._names = [name for name, shape in self._shapes().items() if len(shape) == 4]

    def _shapes(self) -> dict[str, list[int]]:
        from safetensors import safe_open

        with safe_open(self._files[0], "pt") as tensors:
            return {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118

    def __len__(self) -> int:
        return self._shapes()["direct_effect"][2]

    @overload
    def __getitem__(self, layer: int) -> dict[str, torch.Tensor]: ...
    @overload
    def __getitem__(self, layer: slice) -> Sequence[dict[str, torch.Tensor]]: ...
    def __getitem__(
        self, layer: int | slice
    ) -> dict[str, torch.Tensor] | Sequence[dict[str, torch.Tensor]]:
        from safetensors import safe_open

        if isinstance(layer, slice):
            return [self[at] for at in range(len(self))[layer]]
        if not 0 <= layer < len(self):
            raise IndexError(layer)
        parts: dict[str, list[torch.Tensor]] = {name: [] for name in self._names}
        for path in self._files:
            with safe_open(path, "pt") as tensors:
                for name in self._names:
                    parts[name].append(tensors.get_slice(name)[:, :, layer])
        return {name: torch.cat(values) for name, values in parts.items()}
