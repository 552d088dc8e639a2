"""Which model folders and text files were vetted as they are now (`model.vetting`, `text.vetting`), so that each is
looked through once, and what they held, so that one that is damaged since is not used.

No torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .storage import file_sha256, read_json, write_json

_FILE = "vetted.json"

# Of each file: size and time.
Seen = dict[str, list[Any]]


def is_vetted(place: Path, cache: Path) -> bool:
    """Whether a file, or a folder with the files that it has now, was vetted; by sizes and times."""
    noted = _noted(cache).get(_key(place), {})
    return bool(noted) and {name: seen[:2] for name, seen in noted.items()} == seen_in(place)


def note_vetted(place: Path, cache: Path, *, seen: Seen) -> None:
    """Remember that a file or folder was vetted, and the SHA-256 of what it holds.

    seen: `seen_in` before it was vetted; what has changed since then is not noted.
    """
    sums = {path.name: file_sha256(path) for path in _files(place)}
    if seen_in(place) == seen:
        noted = {name: [*values, sums[name]] for name, values in seen.items()}
        write_json(cache / _FILE, _noted(cache) | {_key(place): noted})


def has_sums(place: Path, cache: Path) -> bool:
    """Whether hashes of a vetted place are noted; they are not of one that an earlier version vetted."""
    noted = _noted(cache).get(_key(place), {})
    return bool(noted) and all(len(seen) == 3 for seen in noted.values())


def changed_since(
    place: Path, cache: Path, *, sha256: Callable[[Path], str] = file_sha256
) -> list[Path]:
    """The files of a vetted place that are gone or hold something else than was noted, whatever their time says.

    Every file is hashed: a disk that flips a bit changes no time.
    """
    if not has_sums(place, cache):
        return []
    noted = _noted(cache)[_key(place)]
    paths = {name: place / name if place.is_dir() else place for name in noted}
    return [
        path for name, path in paths.items() if not path.is_file() or sha256(path) != noted[name][2]
    ]


def _noted(cache: Path) -> dict[str, dict[str, list[Any]]]:
    """Of each place, of each file in it: size, time, and, if this version noted it, SHA-256."""
    notes = cache / _FILE
    noted: dict[str, dict[str, list[Any]]] = read_json(notes) if notes.is_file() else {}
    return noted


def _key(place: Path) -> str:
    return str(place.absolute())


def _files(place: Path) -> list[Path]:
    # Also behind links, as the hub's cache has them.
    found = sorted(place.iterdir()) if place.is_dir() else [place]
    return [path for path in found if path.is_file()]


def seen_in(place: Path) -> Seen:
    """Size and time of a file, or of the files of a folder, by name."""
    stats = {path.name: path.stat() for path in _files(place)}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
