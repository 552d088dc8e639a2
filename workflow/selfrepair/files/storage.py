"""Writing and reading results: files that are whole or not there, and whose content is checked.

Everything is written under a temporary name in the same folder, flushed and renamed. A tensor file has a
sidecar `<name>.json` with its provenance and SHA-256; reading checks it, so that a damaged or
half-copied file is refused and never used. torch is loaded only where tensors are read or written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON; ValueError for NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_table(path: Path, table: Any) -> None:
    """Write a polars table as Parquet."""
    with atomic(path) as temporary:
        table.write_parquet(temporary)


def read_json(path: Path) -> Any:
    """The content of a JSON file; InputError if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); delete it and run again") from error


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sidecar(path: Path) -> Path:
    """Where the provenance of a file lies: beside it, `.json` in place of its ending."""
    return path.with_suffix(".json")


def write_tensors(path: Path, tensors: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    """Write tensors (safetensors) and, last, the sidecar that vouches for them."""
    from safetensors.torch import save_file

    with atomic(path) as temporary:
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary)
    write_json(sidecar(path), {"sha256": file_sha256(path), **provenance})


def rounded(
    tensors: Mapping[str, Any], dtype: str, *, keep: Collection[str]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Tensors in a smaller dtype, and the largest absolute error of each that was rounded, by name.

    Args:
        dtype: "float16", or "float32", which changes nothing (what is in float64 stays so).
        keep: names of tensors that stay as they are. So does one with a value that the dtype cannot hold.
    """
    import torch

    if dtype == "float32":
        return dict(tensors), {}
    smaller = getattr(torch, dtype)
    largest = torch.finfo(smaller).max
    stored, errors = dict(tensors), {}
    for name in set(tensors) - set(keep):
        values = tensors[name]
        if bool((values.abs() > largest).any()):
            continue
        stored[name] = values.to(smaller)
        errors[name] = float((stored[name].to(values.dtype) - values).abs().nan_to_num().max())
    return stored, errors


def verify(path: Path) -> dict[str, Any]:
    """The provenance of a file whose content its sidecar vouches for.

    Raises:
        InputError: the file or its sidecar is missing, or the content has changed.
    """
    provenance: dict[str, Any] = read_json(sidecar(path))
    if not path.is_file():
        raise InputError(f"{path}: missing; run the workflow again to rebuild it")
    if file_sha256(path) != provenance.get("sha256"):
        raise InputError(
            f"{path}: content differs from the checksum in {sidecar(path).name} (damaged or edited); "
            "delete both and run again"
        )
    return provenance


def read_tensors(
    path: Path, names: Collection[str] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors (some, by name, or all) and provenance of a file whose content its sidecar vouches for.

    Raises:
        InputError: as `verify`.
    """
    from safetensors import safe_open

    provenance = verify(path)
    with safe_open(path, "pt") as tensors:
        wanted = tensors.keys() if names is None else names
        return {name: tensors.get_tensor(name) for name in wanted}, provenance
