"""Shards of a measurement packed into one file, as the store keeps them: `<name>.tar.xz` beside the index
`<name>.json`, a tenth to a half of their size. What reads shards unpacks them first."""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import InputError, first_line
from .shards import shard_files
from .storage import file_sha256, read_json, sidecar, write_bytes

# What an archive may unpack to: this many bytes, or this many times its size, whichever is more. Shards shrink to
# a tenth to a half.
_UNPACKED_BYTES, _UNPACKED_RATIO = 1 << 26, 200
# Numbers of four bytes, mostly: a tenth smaller than with xz's own settings.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "lp": 2, "pb": 2}]


def archive_of(index: Path) -> Path:
    """Where the shards that an index lists are packed."""
    return index.with_suffix(".tar.xz")


def pack_shards(index: Path) -> None:
    """Pack the shards that an index lists, unless its archive holds just these.

    Raises:
        InputError: a shard is missing and not packed either, damaged, or not the one that was gathered.
    """
    listed, archive = _listed(index), archive_of(index)
    if archive.is_file() and listed == _held(archive):
        return
    restore_shards(index)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as packed:
        for path, content in zip(listed, map(Path.read_bytes, shard_files(index)), strict=True):
            # Without time and owner: the same shards give the same bytes.
            member = tarfile.TarInfo(path)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    write_bytes(archive, lzma.compress(stream.getvalue(), filters=_FILTERS))


def restore_shards(index: Path) -> None:
    """Unpack the shards that an index lists and that are not there, or are another revision's, if they were
    packed.

    Raises:
        InputError: the archive is damaged, or lacks the shard that the index lists; a shard has been measured
            again since, which would be lost.
    """
    listed, archive = _listed(index), archive_of(index)
    if not archive.is_file():
        return
    missing = [path for path, sha256 in listed.items() if not _is(index.parent / path, sha256)]
    if not missing:
        return
    for path in missing:
        _refuse_newer(index.parent / path, index)
    for path, content in _unpacked(archive, set(missing)):
        if path in missing and _sha256(content) == listed[path]:
            missing.remove(path)
            write_bytes(index.parent / path, content)
            # No newer than the index, which was made from it.
            time = index.stat().st_mtime_ns
            os.utime(index.parent / path, ns=(time, time))
    if missing:
        raise InputError(
            f"{archive}: does not hold the {missing[0]} that {index.name} lists; delete both and run again"
        )


def _refuse_newer(shard: Path, index: Path) -> None:
    """Refuse to replace a shard that its own sidecar vouches for (InputError)."""
    beside = sidecar(shard)
    if beside.is_file() and _is(shard, read_json(beside)["sha256"]):
        raise InputError(
            f"{shard}: measured again since {index.name} was gathered; run the measurement to its end"
        )


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256


def _listed(index: Path) -> dict[str, str]:
    """SHA-256 of each shard by its path, seen from the index; InputError for one that lies elsewhere."""
    listed = {entry["path"]: entry["sha256"] for entry in read_json(index)["files"]}
    for path in listed:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise InputError(
                f"{index}: lists {path!r}, which is not beside it; delete it and run again"
            )
    return listed


def _held(archive: Path) -> dict[str, str]:
    return {path: _sha256(content) for path, content in _unpacked(archive)}


def _unpacked(archive: Path, wanted: Collection[str] | None = None) -> Iterator[tuple[str, bytes]]:
    """Path and content of each plain file of an archive, one at a time.

    wanted: paths of those that are read; by default all. Nothing is written by the names in there.
    Raises:
        InputError: the archive is damaged, or unpacks to far more than shards do.
    """
    most = max(_UNPACKED_BYTES, _UNPACKED_RATIO * archive.stat().st_size)
    try:
        with lzma.open(archive) as plain, _opened(plain, archive, most) as packed:
            for member in packed:
                if not member.isreg() or (wanted is not None and member.name not in wanted):
                    continue
                stream = packed.extractfile(member)
                yield member.name, stream.read() if stream else b""
    except (OSError, EOFError, lzma.LZMAError, tarfile.TarError, OverflowError) as error:
        raise InputError(
            f"{archive}: cannot be read ({first_line(error)}); delete it and get it again"
        ) from error


def _opened(plain: lzma.LZMAFile, archive: Path, most: int) -> tarfile.TarFile:
    bounded: Any = _Bounded(plain, archive, most)
    return tarfile.open(fileobj=bounded, mode="r:")


class _Bounded:
    """A stream of which only so much is read, whatever a header in it claims."""

    def __init__(self, stream: lzma.LZMAFile, archive: Path, most: int) -> None:
        self._stream, self._archive, self._most = stream, archive, most

    def read(self, size: int) -> bytes:
        self._check(self._stream.tell() + size)
        return self._stream.read(size)

    def seek(self, offset: int) -> int:
        self._check(offset)
        return self._stream.seek(offset)

    def tell(self) -> int:
        return self._stream.tell()

    def _check(self, end: int) -> None:
        # tarfile reads a block of 512 bytes to find that nothing is left.
        if not 0 <= end <= self._most + tarfile.RECORDSIZE:
            raise InputError(
                f"{self._archive}: unpacks to {end:,} bytes, far more than shards do; delete it and get it again"
            )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
