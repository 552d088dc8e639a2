"""Weights that lie here since an earlier run: what is damaged is named and taken away, to be made or fetched again."""

import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from selfrepair.errors import InputError
from selfrepair.files.hub import cached_file, is_local
from selfrepair.files.integrity import Fault
from selfrepair.files.storage import file_sha256
from selfrepair.files.vetted import changed_since
from selfrepair.files.wheels import Wheel
from selfrepair.model.weights import converted_folder, is_converted

CHANGED = "damaged: its content has changed since it was made"
WRONG = "damaged: is not the file that the hub lists"


def folder_here(model: Mapping[str, Any], wheels: Mapping[str, Wheel], cache: Path) -> Path | None:
    """The folder of a model's files, without asking the hub; None if it is not here."""
    if is_converted(model):
        folder = converted_folder(model, wheels, cache)
    elif is_local(model["name"]):
        folder = Path(model["name"]).expanduser()
    else:
        config = cached_file(model["name"], "config.json", model.get("revision"))
        folder = config.parent if config else None
    return folder if folder and folder.is_dir() else None


def faults_of_models(
    folders: Iterable[Path], cache: Path, *, sha256: Callable[[Path], str], remedy: str
) -> Iterator[Fault]:
    """Every file of vetted models that is not what it was; all are hashed."""
    for folder in folders:
        for path in changed_since(folder, cache, sha256=sha256):
            yield Fault(path, CHANGED, remedy)


def set_aside_converted(folder: Path, cache: Path) -> None:
    """Take converted weights that are damaged out of the way, as a whole: they are converted again."""
    changed = changed_since(folder, cache)
    if changed:
        aside = cache / "damaged" / folder.name
        for path in changed:
            print(f"warning: {Fault(path, CHANGED, _aside(aside))}", file=sys.stderr, flush=True)
        # A job of another run may be about to make them.
        with FileLock(f"{folder}.lock"):
            shutil.rmtree(aside, ignore_errors=True)
            aside.parent.mkdir(exist_ok=True)
            folder.replace(aside)


def delete_downloads(paths: Iterable[Path], what: str) -> bool:
    """Delete files of the hub's cache, which can be fetched again, and say what is wrong with them; whether there were
    any."""
    found = list(paths)
    for path in found:
        fault = Fault(path, what, "deleted, to be fetched again")
        print(f"warning: {fault}", file=sys.stderr, flush=True)
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    return bool(found)


def wrong_downloads(paths: Iterable[Path]) -> list[Path]:
    """The files of the hub's cache that are not what the hub has: it keeps large ones under their SHA-256."""
    return [
        path
        for path in paths
        if path.is_file()
        and re.fullmatch("[0-9a-f]{64}", path.resolve().name)
        and file_sha256(path) != path.resolve().name
    ]


def refuse_changed(key: str, folder: Path, cache: Path) -> None:
    """InputError for a file of the user's own that holds something else, although its size and time are the same."""
    for path in changed_since(folder, cache):
        raise InputError(
            f"models.{key}: the content of {path} has changed since it was looked through, though its time has "
            "not, so it is damaged; copy it again (or `touch` it if it is right)"
        )


def _aside(aside: Path) -> str:
    return f"set aside in {aside}/, to be made again"
