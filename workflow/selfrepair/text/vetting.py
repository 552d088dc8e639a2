"""Text files from outside, looked at before documents are sampled from them: what would be refused later without
its reason, measured as something else than text, or take hours and all memory."""

from __future__ import annotations

import codecs
import json
import re
from pathlib import Path

import psutil

from ..errors import InputError, first_line
from .sources import Source

# Characters of a document: it is cleaned and tokenised as a whole, at 3 seconds and 0.1 GB a million. Long novels
# have 3 million.
LONGEST = 5_000_000
# Bytes of memory for each byte of a file while its documents are sampled. Measured: 3 to 5.
_HELD = 6
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# More replacement characters than this share, and it is not a few that went wrong.
_DAMAGED = 1 / 2000


def vet_text(name: str, source: Source) -> None:
    """Look through the file of a source of kind `file`; other kinds are pinned, or read by their own libraries.

    name: the source's key in the config, for messages.
    Raises:
        InputError: a file that is not UTF-8, or larger than memory; a document that is longer than any is; a
            line that is no JSON object with text under the key. (That there is no file is told by reading it.)
    """
    if source["kind"] != "file" or not Path(source["path"]).is_file():
        return
    path = Path(source["path"])
    where = f"text.sources.{name}.path: {path}"
    size, free = path.stat().st_size, psutil.virtual_memory().available
    if size * _HELD > free:
        raise InputError(
            f"{where} has {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free for {_HELD} times as "
            "much; take a part of it"
        )
    content = _decoded(path, where)
    if path.suffix == ".jsonl":
        _vet_lines(content, where, source.get("column", "text"))
        return
    last = 0
    ends = [found.span() for found in re.finditer(r"\n\s*\n\s*\n", content)]
    for start, end in [*ends, (len(content), 0)]:
        _vet_length(start - last, where, f"a document of it, from character {last:,} on,")
        last = end


def _decoded(path: Path, where: str) -> str:
    content = path.read_bytes()
    if content.startswith(_WIDE):
        raise InputError(f"{where} is in UTF-16; save it as UTF-8")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        replaced = content.decode(errors="replace")
        if replaced.count("\ufffd") > _DAMAGED * len(replaced):
            raise InputError(
                f"{where} is not in UTF-8 (byte {error.start:,} is the first that is not); save it as UTF-8"
            ) from error
        return replaced


def _vet_lines(content: str, where: str, column: str) -> None:
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)[column]
        except RecursionError as error:
            raise InputError(
                f"{where}: line {number} is nested too deeply; leave it out"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{where}: line {number} is no JSON object with the key {column!r} ({first_line(error)})"
            ) from error
        if not isinstance(text, str):
            raise InputError(
                f"{where}: line {number} has a {type(text).__name__} under {column!r}, not text; name another "
                "key as `column`"
            )
        if len(line.splitlines()) > 1:
            raise InputError(
                f"{where}: line {number} holds a line or paragraph separator as it is (U+2028 or the like); write "
                "the file with ASCII escapes"
            )
        _vet_length(len(text), where, f"line {number}")


def _vet_length(characters: int, where: str, which: str) -> None:
    if characters > LONGEST:
        raise InputError(
            f"{where}: {which} has {characters:,} characters, more than a document may ({LONGEST:,}); "
            "separate documents by two blank lines"
        )
