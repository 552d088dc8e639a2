"""The MD5 that DVC has recorded of each file (dvc.lock, and the listings of folders in its cache or store)."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfrepair.study.schema import read_yaml

LOCK = Path("dvc.lock")
OBJECTS = (Path(".dvc/cache/files/md5"), Path("artifacts/files/md5"))


def recorded_md5(checkout: Path, folders: tuple[str, ...]) -> dict[str, str]:
    """MD5 by path of every recorded file in these folders; none where nothing is recorded, or where the
    listing of a folder is not here yet (`make pull`)."""
    found: dict[str, str] = {}
    for out in _outs(checkout):
        found.update(_files(checkout, out))
    return {path: md5 for path, md5 in found.items() if path.startswith(folders)}


def delete_wrong(checkout: Path) -> list[str]:
    """Delete recorded files that DVC's cache holds otherwise than recorded, there and in their places; their paths.

    A store that DVC does not check (its option `verify`) may have sent anything.
    """
    found = []
    # Listings of folders first: without them it is not known what lies in the folders.
    for of_files in (lambda out: [(out["path"], out["md5"])], lambda out: _files(checkout, out)):
        for path, md5 in [entry for out in _outs(checkout) for entry in of_files(out)]:
            kept, place = checkout / OBJECTS[0] / md5[:2] / md5[2:], checkout / path
            if not kept.is_file():
                continue
            held = _md5(kept)
            if held != md5.removesuffix(".dir"):
                kept.unlink()
                if place.is_file() and _md5(place) == held:
                    place.unlink()
                found.append(path)
    return found


def _outs(checkout: Path) -> list[dict[str, Any]]:
    """What dvc.lock says of each output."""
    if not (checkout / LOCK).is_file():
        return []
    stages = read_yaml(checkout / LOCK).get("stages", {})
    return [out for stage in stages.values() for out in stage.get("outs", ())]


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def _files(checkout: Path, out: dict[str, Any]) -> Iterator[tuple[str, str]]:
    path, md5 = out["path"], out["md5"]
    if not md5.endswith(".dir"):
        yield path, md5
        return
    for listing in objects_of(checkout, md5):
        for entry in json.loads(listing.read_text(encoding="utf-8")):
            yield f"{path}/{entry['relpath']}", entry["md5"]
        return


def objects_of(checkout: Path, md5: str) -> list[Path]:
    """The files of DVC's cache and of the bundled store that keep the content with this MD5."""
    found = [checkout / objects / md5[:2] / md5[2:] for objects in OBJECTS]
    return [path for path in found if path.is_file()]
