"""Servers that a test starts on this machine and stops again, by their process."""

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest


def needs(*programs: str, modules: tuple[str, ...] = ()) -> None:
    """Skip with the reason if a server or a client is not installed."""
    missing = [name for name in programs if program(name) is None]
    missing += [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def program(name: str) -> str | None:
    """The path of a program, which may be one of the administrator's."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(command: list[str], ready: Callable[[], bool], **options: object) -> Iterator[None]:
    """A server that is ready when the block begins and gone when it ends."""
    with tempfile.TemporaryFile() as output:  # a pipe that nobody reads would stop it when full
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            **options,  # type: ignore[call-overload]
        )
        try:
            for _ in range(200):
                if process.poll() is not None:
                    output.seek(0)
                    pytest.fail(f"{command[0]} ended: {output.read().decode()}")
                if ready():
                    break
                time.sleep(0.1)
            else:
                pytest.fail(f"{command[0]} is not ready after 20 s")
            yield
        finally:
            process.terminate()
            process.wait(20)


def server(command: list[str], port: int, **options: object) -> AbstractContextManager[None]:
    """A server that listens on a port of this machine."""
    return running(command, lambda: listening(port), **options)
