"""Downloads are tried again while their error may pass, and only then."""

import email.message
import ssl
from http.client import IncompleteRead
from urllib.error import HTTPError, URLError

import pytest

from selfrepair.errors import InputError
from selfrepair.files import patience
from selfrepair.files.patience import may_pass, patiently


def answer(status: int, **headers: str) -> HTTPError:
    told = email.message.Message()
    for name, value in headers.items():
        told[name.replace("_", "-")] = value
    return HTTPError("http://here/x", status, "no", told, None)


def of(cause: BaseException) -> InputError:
    """As the library tells it."""
    error = InputError("cannot be fetched")
    error.__cause__ = cause
    return error


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """Seconds that were waited."""
    found: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", found.append)
    return found


def failing(*errors: BaseException):
    """A download that fails so, and then is there."""
    left = list(errors)

    def download() -> str:
        if left:
            raise left.pop(0)
        return "content"

    return download


def test_what_passes_is_tried_again_with_longer_waits(waits, capsys):
    error = of(ConnectionResetError("reset by peer"))
    assert patiently(failing(error, error, error)) == "content"
    assert waits == [1, 2, 4]
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "warning: cannot be fetched; trying again in 1 s"
    assert len(told) == 3


def test_the_last_error_is_raised(waits):
    errors = [of(answer(503)) for _ in range(patience.TRIES)]
    with pytest.raises(InputError) as raised:
        patiently(failing(*errors))
    assert raised.value is errors[-1]
    assert len(waits) == patience.TRIES - 1


@pytest.mark.parametrize(
    ("asked", "waited"), [("7", 7), ("100000", 60), ("Wed, 21 Oct 2026 07:28:00 GMT", 1)]
)
def test_a_server_that_says_when_is_asked_then(waits, asked, waited):
    assert patiently(failing(of(answer(429, Retry_After=asked)))) == "content"
    assert waits == [waited]


@pytest.mark.parametrize(
    "error",
    [
        answer(404),
        answer(401),
        URLError(ssl.SSLCertVerificationError("self-signed certificate")),
        ValueError("SHA-256"),
    ],
)
def test_what_does_not_pass_is_told_at_once(waits, error):
    with pytest.raises(InputError):
        patiently(failing(of(error)))
    assert waits == []


@pytest.mark.parametrize(
    "error",
    [
        *(TimeoutError("timed out"), URLError(ConnectionRefusedError("refused"))),
        *(IncompleteRead(b"", 9), answer(500), answer(408)),
    ],
)
def test_what_passes(error):
    assert may_pass(of(error))
