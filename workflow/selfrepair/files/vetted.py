"""Which model folders and text files were vetted as they are now (`model.vetting`, `text.vetting`), so that each is
looked through once.

No torch: a study that has nothing to do ends in seconds.
"""

from __future__ import annotations

from pathlib import Path

from .storage import read_json, write_json

_FILE = "vetted.json"


def is_vetted(place: Path, cache: Path) -> bool:
    """Whether a file, or a folder with the files that it has now, was vetted; by sizes and times."""
    notes = cache / _FILE
    return notes.is_file() and read_json(notes).get(_key(place)) == _seen(place)


def note_vetted(place: Path, cache: Path) -> None:
    """Remember that a file or folder was vetted."""
    notes = cache / _FILE
    known = read_json(notes) if notes.is_file() else {}
    write_json(notes, known | {_key(place): _seen(place)})


def _key(place: Path) -> str:
    return str(place.absolute())


def _seen(place: Path) -> dict[str, list[int]]:
    # Also behind links, as the hub's cache has them.
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    stats = {path.name: path.stat() for path in files if path.is_file()}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
