"""One run at a time in a checkout, whoever starts it: `make study`, `make record`, DVC or Snakemake by hand.

A run holds a lock on a file (flock). It has the file as its standard input, and so have all its jobs, which
inherit that: the lock is free only when the last of them has ended, however the run came to its end.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from selfrepair.errors import InputError

LOCK = Path(".snakemake/run.lock")
# Set for all that a run starts.
HELD = "SELFREPAIR_RUN"
# Seconds that jobs are given to end.
PATIENCE = 10
_DRY_RUN = re.compile(r"--dry-?run|-[a-z]*n[a-z]*")
# A file that `files.storage.atomic` has not finished.
UNFINISHED = re.compile(r"\..+\.\d+\.tmp")


def is_dry_run(options: Iterable[str]) -> bool:
    """Whether these options of Snakemake ask for a dry run, which needs no lock."""
    return any(_DRY_RUN.fullmatch(option) for option in options)


def hold(checkout: Path) -> None:
    """Make this process the only run in a checkout until it and all that it starts have ended.

    Jobs of a killed run that are still at work are ended: Snakemake would run them again in any case.

    Raises:
        InputError: another run is at work; with its process and since when.
    """
    if HELD in os.environ:
        return
    path = checkout.resolve() / LOCK
    path.parent.mkdir(exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if not _locked(lock):
        _end_orphans(path)
        if not _locked(lock):
            raise InputError(_at_work(_owner(path)))
    owner = {"pid": os.getpid(), "since": time.strftime("%F %T"), **_here()}
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps(owner).encode(), 0)
    os.dup2(lock, 0)
    os.close(lock)
    os.environ[HELD] = str(os.getpid())


def clean_up(checkout: Path) -> None:
    """Remove what a killed run has left: Snakemake's locks, half-written files. Only for the one that holds
    the lock, before it starts Snakemake."""
    shutil.rmtree(checkout / ".snakemake/locks", ignore_errors=True)
    for top in ("results", "figures"):
        for path in (checkout / top).rglob(".*.tmp"):
            if UNFINISHED.fullmatch(path.name):
                path.unlink(missing_ok=True)


def end(processes: Iterable[psutil.Process], *, patience: float = PATIENCE) -> None:
    """End processes: asked first and, after some seconds, killed."""
    left = list(processes)
    for process in left:
        _signal(process, psutil.Process.terminate)
    _, left = psutil.wait_procs(left, timeout=patience)
    for process in left:
        _signal(process, psutil.Process.kill)
    psutil.wait_procs(left, timeout=PATIENCE)


def _signal(process: psutil.Process, send: Any) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        send(process)


def _here() -> dict[str, Any]:
    """What a process number means something in: this host, this container's processes."""
    processes = Path("/proc/self/ns/pid")
    return {
        "host": socket.gethostname(),
        "processes": processes.stat().st_ino if processes.exists() else None,
    }


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(path: Path) -> dict[str, Any]:
    """Who holds the lock: process, host, since when; empty while it is being written."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def _at_work(owner: dict[str, Any]) -> str:
    host = owner.get("host")
    where = "" if host == socket.gethostname() else f" on {host}"
    return (
        f"another run is at work in this checkout (process {owner.get('pid')}{where}, since "
        f"{owner.get('since')}): wait for its end, stop it, or use another checkout"
    )


def _end_orphans(path: Path) -> None:
    """End what a run has left whose own process is gone; nothing if that is alive, or not to be seen from
    here (another host, container or user)."""
    owner = _owner(path)
    if not _here().items() <= owner.items():
        return
    holders = [process for process in psutil.process_iter() if _holds(process, path)]
    if not holders or owner["pid"] in [process.pid for process in holders]:
        return
    names = ", ".join(str(process.pid) for process in holders)
    print(f"ending what a killed run has left at work: processes {names}", file=sys.stderr)
    end(holders)


def _holds(process: psutil.Process, path: Path) -> bool:
    """Whether a process has the lock's file as its standard input; who only asks for the lock has it elsewhere."""
    try:
        return (0, str(path)) in [(file.fd, file.path) for file in process.open_files()]
    except psutil.Error:
        return False
