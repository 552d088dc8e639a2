"""Snakemake's records as the store keeps them: in one archive, because they are many small texts that say much the
same (of 600 records 3.6 MB become 60 kB).

An archive that a pull has brought is unpacked by whatever reads records next. What lies here is then compared with
what was packed or unpacked last: a record that differs from that was written by a run in this checkout.
"""

import hashlib
import io
import json
import lzma
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from common.records import FOLDER, record_files
from selfrepair.errors import InputError
from selfrepair.files.storage import atomic, file_sha256, write_json

ARCHIVE = Path(".snakemake/records.tar.xz")
# SHA-256 of the archive that was packed or unpacked last, and of each record in it.
NOTED = Path(".snakemake/unpacked.json")
# The base64 of a path; a long one lies in folders, a piece of the name each.
_NAME = re.compile(r"(@[\w-]+/)*[\w-]+=*", re.ASCII)


def pack_records(checkout: Path, about: tuple[str, ...]) -> None:
    """Pack the records of all files whose paths begin so; the same records give the same bytes.

    Raises:
        InputError: there are none, or there is an archive that cannot be read.
    """
    # Those that a pull has brought are not to be lost.
    unpack_records(checkout)
    folder, archive = checkout / FOLDER, checkout / ARCHIVE
    records = {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for path, file in record_files(folder)
        if path.startswith(about)
    }
    if not records:
        raise InputError(f"{folder}: no records of {', '.join(about)}; run the study first")
    if not archive.is_file() or dict(_packed(archive)) != records:
        with atomic(archive) as temporary, tarfile.open(temporary, "w:xz") as packed:
            for name, content in sorted(records.items()):
                # Without time and owner.
                member = tarfile.TarInfo(name)
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))
    _note(checkout, records)


def unpack_records(checkout: Path) -> None:
    """Unpack the records of an archive that is new here.

    A record that a run in this checkout has written since the last archive stays, if it is newer than the
    archive's; so do records that neither archive has, such as those of studies that are not recorded.

    Raises:
        InputError: the archive is damaged, or has something else in it than records; then nothing is unpacked.
    """
    folder, archive = checkout / FOLDER, checkout / ARCHIVE
    if not archive.is_file():
        return
    last, noted = _noted(checkout)
    if last == file_sha256(archive) and folder.is_dir():
        return
    records = dict(_packed(archive))
    for name, content in records.items():
        here = _read(folder / name)
        if here is None or _sha256(here) == noted.get(name) or _ended(here) <= _ended(content):
            _write(checkout, name, content)
    for name in noted.keys() - records.keys():
        here = _read(folder / name)
        if here is not None and _sha256(here) == noted[name]:
            (folder / name).unlink()
    _note(checkout, records)


def _packed(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each record in an archive."""
    try:
        # All of it at once: a tar's reader does not look at the checksums behind its last file.
        content = lzma.decompress(archive.read_bytes())
        with tarfile.open(fileobj=io.BytesIO(content)) as packed:
            for member in packed:
                stream = packed.extractfile(member) if member.isreg() else None
                if stream is None or not _NAME.fullmatch(member.name):
                    raise tarfile.TarError(f"{member.name!r} in it is no record")
                yield member.name, stream.read()
    except (OSError, lzma.LZMAError, tarfile.TarError) as error:
        raise InputError(
            f"{archive}: cannot be read ({error}); delete it, and `make pull` gets it again"
        ) from error


def _write(checkout: Path, name: str, content: bytes) -> None:
    """Not beside the record: its name may be as long as a name can be."""
    path, temporary = checkout / FOLDER / name, checkout / f".snakemake/record.{os.getpid()}.tmp"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_bytes(content)
    temporary.replace(path)


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _ended(record: bytes) -> float:
    """When the file was made that a record is about; 0 if the record does not say."""
    try:
        return float(json.loads(record)["endtime"])
    except (ValueError, KeyError, TypeError):
        return 0.0


def _noted(checkout: Path) -> tuple[str, dict[str, str]]:
    """SHA-256 of the last archive, and of each of its records by name; nothing if there was none."""
    try:
        noted = json.loads((checkout / NOTED).read_text(encoding="utf-8"))
        return str(noted["archive"]), dict(noted["records"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", {}


def _note(checkout: Path, records: Mapping[str, bytes]) -> None:
    hashes = {name: _sha256(content) for name, content in records.items()}
    noted = {"archive": file_sha256(checkout / ARCHIVE), "records": hashes}
    write_json(checkout / NOTED, noted)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
