"""Which model folders were vetted as they are now (`model.vetting`), so that weights are looked through once.

No torch: a study that has nothing to do ends in seconds.
"""

from __future__ import annotations

import os
from pathlib import Path

from .storage import read_json, write_json

_FILE = "vetted.json"


def is_vetted(folder: Path, cache: Path) -> bool:
    """Whether a model's folder was vetted with the files that it has now, by their sizes and times."""
    notes = cache / _FILE
    return notes.is_file() and read_json(notes).get(_key(folder)) == _seen(folder)


def note_vetted(folder: Path, cache: Path) -> None:
    """Remember that a model's folder was vetted."""
    notes = cache / _FILE
    known = read_json(notes) if notes.is_file() else {}
    write_json(notes, known | {_key(folder): _seen(folder)})


def _key(folder: Path) -> str:
    return str(folder.absolute())


def _seen(folder: Path) -> dict[str, list[int]]:
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file():  # also behind a link, as the hub's cache has them
                stat = entry.stat()
                found[entry.name] = [stat.st_size, stat.st_mtime_ns]
    return found
