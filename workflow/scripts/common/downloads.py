"""Downloads that end: of every library that downloads, how long it bears silence and how often it tries.

Each does part of this itself. What none of them does is tried again here (`selfrepair.files.patience`). To be imported
before them: they read their settings once.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from selfrepair.files.patience import SILENCE, may_pass, patiently

# The hub's client asks six times for a file that breaks off; its own default is 10 s.
os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", f"{SILENCE:.0f}")
# pip asks three times, with its own 15 s, each time that it is called. Wheels are kept here: in pip's own cache a
# damaged one would stay.
os.environ.setdefault("PIP_RETRIES", "2")
os.environ["PIP_NO_CACHE_DIR"] = "1"

from huggingface_hub import constants

from selfrepair.errors import InputError
from selfrepair.files.hub_client import bound_silence
from selfrepair.files.wheels import Wheel, fetch_wheel

# How files/wheels.py tells that pip has failed.
_PIP = "pip cannot download it"

Found = TypeVar("Found")


def fetch_pinned(wheel: Wheel, cache: Path) -> None:
    """Fetch a wheel. What pip says does not tell one that does not exist from an index that gives no answer."""
    try:
        patiently(partial(fetch_wheel, wheel, cache), passes=lambda error: _PIP in str(error))
    except InputError as error:
        if _PIP not in str(error):
            raise
        command = f"{sys.executable} -m pip download --no-deps {wheel.name}=={wheel.version}"
        raise InputError(f"{error}; `{command}` tells more") from error


def from_hub(call: Callable[[], Found]) -> Found:
    """What the hub gives; tried again where its client has not: of a busy server, and of what a repository holds."""
    return patiently(call, passes=_may_pass)


def _may_pass(error: BaseException) -> bool:
    cause = error.__cause__
    # The client has borne six times as much silence already, where it is not the cause of a cause.
    silent = any(kind.__name__ == "TimeoutException" for kind in type(cause).__mro__)
    return not constants.HF_HUB_OFFLINE and not silent and may_pass(error)


bound_silence()
