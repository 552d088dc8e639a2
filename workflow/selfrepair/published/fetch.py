"""What the paper's authors released, and how a file of theirs gets here. No torch."""

from __future__ import annotations

import hashlib
import re
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

from ..errors import InputError, first_line
from ..files.patience import SILENCE, patiently
from ..files.storage import atomic, file_sha256

# Name of a quantity in the released files -> column of the heads table. Effects are in logits,
# `logit_diff` is ablated less clean as here, `percent_*` lie in 0..1 in spite of their name.
QUANTITIES = {
    "direct_effects": "direct_effect",
    "ablated_direct_effects": "ablated_direct_effect",
    "logit_diff": "delta_logit",
    "self_repair_from_heads": "from_heads",
    "self_repair_from_layers": "from_mlps",
    "self_repair_from_LN": "from_norm",
    "percent_heads_of_DE": "from_heads_share_clipped",
    "percent_layers_of_DE": "from_mlps_share_clipped",
    "percent_LN_of_DE": "from_norm_share_clipped",
}
# Bytes; the released tables have one to two thousand.
MOST_BYTES = 2**20


def table_file(model: str, quantity: str) -> str:
    """Name of a released file; `model` as the authors spell it, `quantity` a key of QUANTITIES.

    Raises:
        InputError: an unknown quantity.
    """
    if quantity not in QUANTITIES:
        raise InputError(
            f"published: {quantity!r} is no released quantity; take one of {', '.join(QUANTITIES)}"
        )
    return f"{model}_condensed_{quantity}"


def fetch_table(location: str | Path, file: str, *, sha256: str, cache: Path) -> Path:
    """Path of a released table; downloaded into `cache` only if it is not there with this SHA-256.

    Args:
        location: a folder, whose file is left where it is (`read_table` checks it), or the http(s)
            address of one.
    Raises:
        InputError: no such file, no answer, an answer that is too long, or another SHA-256.
    """
    if re.fullmatch(r"[^/\\]+", file) is None or file in {".", ".."}:
        raise InputError(f"published: {file!r} is not the name of a file in {location}")
    if "://" not in str(location):
        path = Path(location, file)
        if not path.is_file():
            raise InputError(f"{location}: has no file {file}; correct `location` or put it there")
        return path
    url = f"{str(location).rstrip('/')}/{quote(file)}"
    kept = cache / file
    if kept.is_file() and file_sha256(kept) == sha256:
        return kept
    content = _download(url)
    check_hash(content, sha256, url)
    with atomic(kept) as temporary:
        temporary.write_bytes(content)
    return kept


def check_hash(content: bytes, sha256: str, source: str | Path) -> None:
    """Refuse content that has another SHA-256 (InputError, which names its source)."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise InputError(
            f"{source}: SHA-256 is {found}, expected {sha256}; replace the file if it is damaged,"
            " or correct the pinned value if you trust it"
        )


def _download(url: str) -> bytes:
    if not url.lower().startswith(("http://", "https://")):
        raise InputError(f"{url}: not an http(s) address; give one, or a folder")
    try:
        content = patiently(lambda: _answer(url))
    except (OSError, HTTPException, ValueError) as error:
        raise InputError(
            f"{url}: cannot be downloaded ({first_line(error)}); check the address and the"
            " connection, or put the files into a folder and give that"
        ) from error
    if len(content) > MOST_BYTES:
        raise InputError(f"{url}: more than {MOST_BYTES:,} bytes, no per-head table; correct it")
    return content


def _answer(url: str) -> bytes:
    """What a server answers, cut off after MOST_BYTES + 1 (OSError, HTTPException or ValueError if it fails)."""
    request = Request(url, headers={"User-Agent": "selfrepair"})
    with urlopen(request, timeout=SILENCE) as answer:
        content: bytes = answer.read(MOST_BYTES + 1)
        if (
            len(content) <= MOST_BYTES and answer.length
        ):  # `read` says nothing of a connection that closes
            raise IncompleteRead(content, answer.length)
    return content
