"""The MD5 that DVC has recorded of each file (dvc.lock, and the listings of folders in its cache or store)."""

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
    if not (checkout / LOCK).is_file():
        return {}
    stages = read_yaml(checkout / LOCK).get("stages", {})
    found: dict[str, str] = {}
    for stage in stages.values():
        for out in stage.get("outs", ()):
            found.update(_files(checkout, out))
    return {path: md5 for path, md5 in found.items() if path.startswith(folders)}


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
