"""Shards of a measurement: a tensor file each, and an index with the checksums of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from ..errors import InputError
from .storage import read_json, verify

# Provenance that must be the same in all shards of a measurement.
_SHARED = (
    "study",
    "model",
    "model_commit",
    "weights",
    "ablation",
    "tokens",
    "mapped",
    "bos_token",
    "dtype",
    "tf32",
    "heads",
    "scalings",
    "n_neurons",
    "not_measured",
    "logit_scale",
    "logit_softcap",
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
    records: list[dict[str, Any]] = []
    for path in shards:
        records.append(verify(path))
        _check_continues(path, records)
    shared = {key: records[0][key] for key in _SHARED if key in records[0]} if records else {}
    files = [
        {"path": str(path.relative_to(relative_to)), "sha256": record["sha256"]}
        for path, record in zip(shards, records, strict=True)
    ]
    return {
        **shared,
        "files": files,
        "prompts": records[-1]["prompts"][1] if records else 0,
        **worst_errors(records),
        "wall_seconds": sum((record["wall_seconds"] for record in records), 0.0),
    }


def _check_continues(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """InputError unless the last record starts where the one before ends, and is of the same kind.

    path: of the shard that the last record is about, for the message.
    """
    first, last = records[0], records[-1]
    due = records[-2]["prompts"][1] if len(records) > 1 else 0
    if last["prompts"][0] != due:
        raise InputError(
            f"{path}: starts at prompt {last['prompts'][0]} where {due} was due; "
            "delete it and run again"
        )
    for key in _SHARED:
        if last.get(key) != first.get(key):
            raise InputError(
                f"{path}: its {key} is {last.get(key)}, that of the first shard {first.get(key)}; "
                "delete both and run again"
            )


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


def read_shards(index: Path) -> list[dict[str, Any]]:
    """The arrays of each shard of a gathered measurement, by name, in order of their prompts (raises as
    `shard_files`)."""
    from safetensors.torch import load_file

    return [load_file(path) for path in shard_files(index)]


def read_instances(index: Path) -> dict[str, Any]:
    """The instances of a gathered sweep of drawn tokens, a head on one of its tokens each: tensors by name,
    [instance], all shards joined, without sums over instances such as a repair map's (raises as
    `shard_files`)."""
    import torch

    shards = read_shards(index)
    names = [name for name in shards[0] if "." not in name]
    return {name: torch.cat([shard[name] for shard in shards]) for name in names}


class SummedLayers(Sequence[dict[str, Any]]):
    """The sums of a gathered sweep over all tokens (`measure.prompt_sums.summed`), read from their files a
    layer at a time: all of a large sweep's would not fit into main memory.

    Item l holds the tensors of layer l by name: sums, [prompt, head], joined over prompts; histograms,
    [head, effect, bin], added up. per_prompt: by name what has no layers, [prompt, ...], joined.
    """

    def __init__(self, index: Path) -> None:
        """index: the file that `gather` described the sweep in (raises as `shard_files`)."""
        import torch
        from safetensors import safe_open

        self._files = shard_files(index)
        with safe_open(self._files[0], "pt") as tensors:
            shapes = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
        self._sums = [name for name, shape in shapes.items() if len(shape) == 3]
        self._histograms = [name for name, shape in shapes.items() if len(shape) == 4]
        self._n_layers = shapes[self._sums[0]][1]
        parts: dict[str, list[Any]] = {n: [] for n, shape in shapes.items() if len(shape) < 3}
        for path in self._files:
            with safe_open(path, "pt") as tensors:
                for name, found in parts.items():
                    found.append(tensors.get_tensor(name))
        self.per_prompt = {name: torch.cat(found) for name, found in parts.items()}

    def __len__(self) -> int:
        return self._n_layers

    @overload
    def __getitem__(self, layer: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, layer: slice) -> Sequence[dict[str, Any]]: ...
    def __getitem__(self, layer: int | slice) -> dict[str, Any] | Sequence[dict[str, Any]]:
        import torch
        from safetensors import safe_open

        if isinstance(layer, slice):
            return [self[at] for at in range(len(self))[layer]]
        if not 0 <= layer < len(self):
            raise IndexError(layer)
        sums: dict[str, list[Any]] = {name: [] for name in self._sums}
        histograms: dict[str, Any] = dict.fromkeys(self._histograms, 0)
        for path in self._files:
            with safe_open(path, "pt") as tensors:
                for name in sums:
                    sums[name].append(tensors.get_slice(name)[:, layer])
                for name in histograms:
                    histograms[name] = histograms[name] + tensors.get_slice(name)[layer].long()
        return {name: torch.cat(values) for name, values in sums.items()} | histograms
