"""What is wrong with files that are there: hashed again, and compared with what vouches for them.

Tensors are vouched for by their sidecar, shards by the index of their measurement besides, and any file by
whoever has noted its hash. Nothing is changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import InputError
from .archives import archive_of
from .storage import read_json, sidecar

_TENSORS = ".safetensors"
# The measurement whose shards are ranked into one file, which is what is read later.
CLEAN_PASS = "clean"
# Bytes that are read at once.
_PIECE = 1 << 20


@dataclass(frozen=True)
class Fault:
    """A file that cannot be trusted, what is wrong with it, and what to do; as text in one line."""

    path: Path
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}; {self.remedy}"


class Digests:
    """Hashes of files, each computed once.

    read: is told the number of bytes of each piece that has been hashed.
    """

    def __init__(self, read: Callable[[int], Any] = lambda _: None) -> None:
        self._read = read
        self._found: dict[tuple[Path, str], str] = {}

    def of(self, path: Path, algorithm: str = "sha256") -> str:
        """The hash of a file (OSError if it cannot be read)."""
        if (path, algorithm) not in self._found:
            digest = hashlib.new(algorithm, usedforsecurity=False)
            with path.open("rb") as stream:
                for piece in iter(partial(stream.read, _PIECE), b""):
                    digest.update(piece)
                    self._read(len(piece))
            self._found[path, algorithm] = digest.hexdigest()
        return self._found[path, algorithm]


def damaged_tensors(folder: Path, digests: Digests, *, remedy: str) -> Iterator[Fault]:
    """The tensor files below a folder whose sidecar does not vouch for them.

    Where the index of a measurement shows that the sidecar is the damaged one, the fault is the sidecar's.
    """
    listed = dict(_listed(folder))
    for path in sorted(folder.rglob(f"*{_TENSORS}")):
        beside = sidecar(path)
        if not beside.is_file():
            yield Fault(beside, f"missing, so that nothing vouches for {path.name}", remedy)
            continue
        try:
            vouched = read_json(beside).get("sha256")
        except (InputError, AttributeError):
            yield Fault(beside, "damaged: is no sidecar", remedy)
            continue
        found, due = digests.of(path), listed.get(path)
        if found == vouched:
            if due not in (None, found):
                yield Fault(path, "is not the shard that its index lists", remedy)
        elif found == due:
            yield Fault(beside, f"does not vouch for {path.name}, which its index lists", remedy)
        else:
            yield Fault(path, f"damaged: differs from the checksum in {beside.name}", remedy)


def lacking_shards(folder: Path, *, remedy: str) -> Iterator[Fault]:
    """The shards that indices below a folder list, and that are neither there nor packed; indices that cannot
    be read.

    A clean pass of which no shard is there lacks none: a store leaves them out, and they are made again when
    something reads them.
    """
    for index, content in _indices(folder):
        if content is None:
            yield Fault(index, "damaged: cannot be read", remedy)
            continue
        paths = [index.parent / entry["path"] for entry in content["files"]]
        missing = [path for path in paths if not path.is_file()]
        left_out = index.stem == CLEAN_PASS and len(missing) == len(paths)
        if not left_out and not archive_of(index).is_file():
            for path in missing:
                yield Fault(path, f"missing, and {index.name} lists it", remedy)


def changed_files(
    noted: Mapping[Path, str],
    digests: Digests,
    *,
    algorithm: str = "sha256",
    what: str,
    remedy: str,
) -> Iterator[Fault]:
    """The files whose hash is not the one noted, of those that are there."""
    for path, due in sorted(noted.items()):
        if path.is_file() and digests.of(path, algorithm) != due:
            yield Fault(path, what, remedy)


def _indices(folder: Path) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """Each index of a measurement, beside the folder of its name, and its content: None if it has none."""
    for index in sorted(folder.rglob("*.json")):
        if index.with_suffix("").is_dir():
            try:
                content = read_json(index)
            except InputError:
                content = None
            if isinstance(content, dict) and "files" in content:
                yield index, content
            elif not isinstance(content, dict):
                yield index, None


def _listed(folder: Path) -> Iterator[tuple[Path, str]]:
    for index, content in _indices(folder):
        for entry in content["files"] if content else ():
            yield index.parent / entry["path"], entry["sha256"]
