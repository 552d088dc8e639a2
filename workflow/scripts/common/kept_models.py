"""Weights that lie here since an earlier run: what is damaged is named and taken away, to be made or fetched again."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from huggingface_hub import constants

from selfrepair.errors import InputError
from selfrepair.files.hub import cached_file, is_local
from selfrepair.files.integrity import Fault
from selfrepair.files.storage import file_sha256
from selfrepair.files.vetted import changed_since, is_vetted
from selfrepair.files.wheels import Wheel
from selfrepair.model.weights import converted_folder, is_converted

CHANGED = "damaged: its content has changed since it was made"
COPY = "copy it again (or `touch` it if it is right)"
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
    models: Iterable[tuple[Mapping[str, Any], Path]],
    cache: Path,
    *,
    sha256: Callable[[Path], str],
    remedy: str,
) -> Iterator[Fault]:
    """Every file of vetted models, each with its folder, that is not what it was; all are hashed.

    remedy: for what a study makes or fetches again. A directory of the user's own that was edited since is looked
    through by the next run, and is no fault.
    """
    for model, folder in models:
        own = not is_converted(model) and is_local(model["name"])
        if own and not is_vetted(folder, cache):
            continue
        for path in changed_since(folder, cache, sha256=sha256):
            yield Fault(path, CHANGED, COPY if own else remedy)


def set_aside_converted(folder: Path, cache: Path) -> None:
    """Take converted weights that are damaged out of the way, as a whole: they are converted again."""
    # Another run may be about to make them, or have done so.
    with FileLock(f"{folder}.lock"):
        changed = changed_since(folder, cache) if folder.is_dir() else []
        if not changed:
            return
        aside = cache / "damaged" / folder.name
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)
        shutil.move(folder, aside)
    for path in changed:
        print(f"warning: {Fault(path, CHANGED, _aside(aside))}", file=sys.stderr, flush=True)


@contextmanager
def fetched_again(paths: Iterable[Path], what: str) -> Iterator[bool]:
    """Take files out of the hub's cache, so that what is done within fetches them again; whether there are any.

    They come back if that fails: what is damaged may still be the only copy.

    Raises:
        InputError: they cannot be fetched again, because the hub is not to be asked, or lie elsewhere.
    """
    moved = []
    try:
        for path in paths:
            file = path.resolve()
            if constants.HF_HUB_OFFLINE or not file.is_relative_to(_hub_cache()):
                why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"it lies in {file}"
                raise InputError(f"{Fault(path, what, f'copy it again ({why})')}")
            kept = file.with_name(f"{file.name}.damaged")
            file.replace(kept)
            moved.append((path, file, kept))
            fault = Fault(path, what, "to be fetched again")
            print(f"warning: {fault}", file=sys.stderr, flush=True)
        for path, _, _ in moved:
            path.unlink(missing_ok=True)
        yield bool(moved)
    except BaseException:
        for path, file, kept in moved:
            if not file.exists():
                kept.replace(file)
                if path != file and not path.exists():
                    path.symlink_to(os.path.relpath(file, path.parent.resolve()))
        raise
    finally:
        for _, _, kept in moved:
            kept.unlink(missing_ok=True)


def _hub_cache() -> Path:
    return Path(constants.HF_HUB_CACHE).resolve()


def wrong_downloads(paths: Iterable[Path | None]) -> list[Path]:
    """The files of the hub's cache that are not what the hub has: it keeps large ones under their SHA-256."""
    return [
        path
        for path in paths
        if path
        and path.is_file()
        and re.fullmatch("[0-9a-f]{64}", path.resolve().name)
        and file_sha256(path) != path.resolve().name
    ]


def refuse_changed(key: str, folder: Path, cache: Path) -> None:
    """InputError for a file of the user's own that holds something else, although its size and time are the same."""
    for path in changed_since(folder, cache):
        raise InputError(
            f"models.{key}: the content of {path} has changed since it was looked through, though its time has "
            f"not, so it is damaged; {COPY}"
        )


def _aside(aside: Path) -> str:
    return f"set aside in {aside}/, to be made again"
