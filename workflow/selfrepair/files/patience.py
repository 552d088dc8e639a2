"""Downloads that are tried again: a server that is busy, a connection that breaks or falls silent.

The libraries that download (pip, huggingface_hub) do some of this themselves, but none of them all of it.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPException
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_exponential

from ..errors import first_line

# How often a download is tried; between tries 1, 2 and 4 s pass, or as long as the server asks for, at most a minute.
TRIES = 4
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
# Seconds of silence after which a connection is given up.
SILENCE = 30.0
# Answers that another try may change: too slow, too many requests, a server that is down or overloaded.
PASSING = {408, 425, 429, 500, 502, 503, 504}

Found = TypeVar("Found")


def patiently(
    call: Callable[[], Found], *, passes: Callable[[BaseException], bool] | None = None
) -> Found:
    """What a download returns; tried again while its error may pass, with a line to the user before each wait.

    Args:
        call: the download; passes: whether its error may pass, `may_pass` by default.
    Raises:
        the error of the last try.
    """
    retrying = Retrying(
        retry=retry_if_exception(passes or may_pass),
        stop=stop_after_attempt(TRIES),
        wait=_wait,
        before_sleep=_tell,
        reraise=True,
    )
    return retrying(call)


def may_pass(error: BaseException) -> bool:
    """Whether an error is one of the network or of a busy server, itself or by what has caused it."""
    for cause in _causes(error):
        status = _status(cause)
        if status is not None:
            return status in PASSING
        if isinstance(cause, ssl.SSLCertVerificationError):
            return False
        if isinstance(cause, (TimeoutError, ConnectionError, HTTPException)):
            return True
        if any(kind.__name__ == "TransportError" for kind in type(cause).__mro__):  # httpx
            return "CERTIFICATE_VERIFY_FAILED" not in str(cause)
    return False


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what has caused it, urllib's reasons too."""
    found: BaseException | None = error
    while found is not None:
        yield found
        reason = getattr(found, "reason", None)
        found = found.__cause__ or (reason if isinstance(reason, BaseException) else None)


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error is about."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    found = status or getattr(error, "code", None)
    return found if isinstance(found, int) else None


def _wait(state: RetryCallState) -> float:
    """Seconds until the next try."""
    wait = float(wait_exponential(FIRST_WAIT, LONGEST_WAIT)(state))
    for cause in _causes(_error(state)):
        headers: Any = getattr(getattr(cause, "response", cause), "headers", None)
        asked = headers.get("Retry-After") if headers is not None else None
        if asked and asked.isdecimal():  # it may be a date
            wait = max(wait, float(asked))
    return min(wait, LONGEST_WAIT)


def _tell(state: RetryCallState) -> None:
    wait = state.next_action.sleep if state.next_action else 0.0
    line = f"{first_line(_error(state))}; trying again in {wait:.0f} s"
    print(f"warning: {line}", file=sys.stderr, flush=True)


def _error(state: RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome else None
    assert error is not None
    return error
