"""What is noted of each file: by Snakemake how it was made and what its inputs were like then, by our own runs
its hash once it was made."""

import ast
import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfrepair.files.storage import file_sha256, write_json

FOLDER = Path(".snakemake/metadata")
OWN_NOTES = Path(".snakemake/sums.json")
# What reads a shard checks it, by its sidecar.
SHARD = re.compile(r".*/shard-\d+of\d+\.\w+")


@dataclass(frozen=True)
class Record:
    """inputs: the SHA-256 of each; settings: values of the keys of the config that its rule declares; started,
    ended: seconds since 1970."""

    inputs: Mapping[str, str]
    settings: Mapping[str, Any]
    started: float
    ended: float


def read_records(checkout: Path, folders: tuple[str, ...]) -> dict[str, Record]:
    """The records of the files in these folders, by path; what cannot be read is left out."""
    found = {}
    for path, file in record_files(checkout / FOLDER):
        if path.startswith(folders):
            try:
                content = json.loads(file.read_text(encoding="utf-8"))
                found[path] = Record(
                    _sha256(content.get("input_checksums") or {}),
                    _settings(content.get("params") or []),
                    float(content["starttime"]),
                    float(content["endtime"]),
                )
            except (ValueError, SyntaxError, KeyError, TypeError):
                continue
    return found


def record_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The path that each record is about, and the record; long ones lie in folders, a piece of the name each."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            name = "".join(part.removeprefix("@") for part in file.relative_to(folder).parts)
            try:
                yield base64.urlsafe_b64decode(name).decode(), file
            except ValueError:
                continue


def forget_failed(checkout: Path, folders: tuple[str, ...], *, since: float) -> None:
    """Remove the records of failed jobs that began since then: Snakemake notes them like those that have finished,
    and removes their files alone. Such a file would be taken for lost, and its inputs, damaged ones too, for good."""
    for path, file in record_files(checkout / FOLDER):
        if path.startswith(folders) and not (checkout / path).exists():
            try:
                failed = float(json.loads(file.read_text(encoding="utf-8"))["starttime"]) >= since
            except (ValueError, KeyError, TypeError):
                continue
            if failed:
                file.unlink()


def noted_sha256(checkout: Path, records: Mapping[str, Record]) -> dict[str, str]:
    """SHA-256 of each file as a job that has read it since it was made found it, or as our own runs noted it."""
    latest: dict[str, tuple[float, str]] = {}
    for record in records.values():
        for path, sha256 in record.inputs.items():
            made = records.get(path)
            if made and record.started >= made.ended:
                latest[path] = max(latest.get(path, (0.0, "")), (record.started, sha256))
    own = {
        path: sha256
        for path, (ended, sha256) in _own_notes(checkout).items()
        if path in records and records[path].ended == ended
    }
    return {path: sha256 for path, (_, sha256) in latest.items()} | own


def note(checkout: Path, records: Mapping[str, Record]) -> None:
    """Note the hash of each file, without shards, that has been made since the last time."""
    notes = _own_notes(checkout)
    for path, record in records.items():
        file = checkout / path
        new = notes.get(path, (None, ""))[0] != record.ended
        if new and not SHARD.fullmatch(path) and file.is_file():
            notes[path] = (record.ended, file_sha256(file))
    write_json(checkout / OWN_NOTES, notes)


def _own_notes(checkout: Path) -> dict[str, tuple[float, str]]:
    """When each file was made, and its SHA-256; none if they cannot be read."""
    try:
        notes = json.loads((checkout / OWN_NOTES).read_text(encoding="utf-8"))
        return {path: (float(ended), str(sha256)) for path, (ended, sha256) in notes.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _sha256(checksums: Mapping[str, str]) -> dict[str, str]:
    return {
        path: value.removeprefix("sha256:")
        for path, value in checksums.items()
        if value.startswith("sha256:")
    }


def _settings(params: list[str]) -> dict[str, Any]:
    """The settings among a rule's params, each of which is noted as Python writes it."""
    for text in params:
        value = ast.literal_eval(text) if text.startswith("{") else None
        if isinstance(value, dict):
            return value
    return {}
