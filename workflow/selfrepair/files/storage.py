"""Files that are either whole or not there, and that prove what they are.

Everything is written to a temporary name in the same folder, flushed and renamed. A tensor file has a
sidecar `<name>.json` with its provenance and SHA-256; reading checks it, so that a damaged or
half-copied file is refused and never used.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import InputError

_LIBRARIES = ("torch", "transformers", "transformer-lens", "snakemake", "polars", "altair")


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


def write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_table(path: Path, table: Any) -> None:
    """Write a polars table as Parquet."""
    with atomic(path) as temporary:
        table.write_parquet(temporary)


def read_json(path: Path) -> Any:
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
    """Tensors in a smaller dtype ("float16"), and the largest absolute error of each by name.

    Those named in `keep` stay as they are, and so does one that the dtype cannot hold. "float32"
    changes nothing: what is measured in float64 stays float64.
    """
    import torch

    if dtype == "float32":
        return dict(tensors), {}
    small = getattr(torch, dtype)
    most = torch.finfo(small).max
    out, errors = dict(tensors), {}
    for name in set(tensors) - set(keep):
        values = tensors[name]
        if bool((values.abs() > most).any()):
            continue
        out[name] = values.to(small)
        errors[name] = float((out[name].to(values.dtype) - values).abs().nan_to_num().max())
    return out, errors


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


class Stopwatch:
    """Wall time in seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def seconds(self) -> float:
        return round(time.monotonic() - self._start, 2)


def environment() -> dict[str, Any]:
    """Versions, commit and hardware that a result was made with; peak_memory_mb is this process's."""
    import torch

    cuda = torch.cuda.is_available()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "versions": {"python": platform.python_version(), "selfrepair": version("selfrepair")}
        | {name: version(name) for name in _LIBRARIES},
        "commit": _commit(),
        "device": torch.cuda.get_device_name() if cuda else _processor(),
        "threads": torch.get_num_threads(),
        "peak_memory_mb": round(peak / (1024 if sys.platform != "darwin" else 1024**2)),
    }


def _commit() -> str | None:
    """The checked-out commit, with `+` if the tree has uncommitted changes; None outside git."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if dirty else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
