"""Run a study to its end: `study.py CONFIG PROFILE [options of Snakemake]`; what `make study` calls.

One command is enough whatever has happened before: what a killed run left is put right, what is damaged is
set aside and made again, and what is missing is made before anything is compared with it.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

import psutil

from common.one_run import PATIENCE, clean_up, end, hold, is_dry_run
from common.packed_records import unpack_records
from common.repair import Repair
from selfrepair.errors import InputError
from selfrepair.study.schema import read_yaml

# So many missing files at most are made one by one: each takes Snakemake a few seconds.
FEW = 12

STOPPED = "stopped: what is finished is kept; the same command goes on from there"


def command(config: str, profile: str) -> list[str]:
    """Snakemake for a study, without more options."""
    return [
        *(sys.executable, "-m", "snakemake"),
        *("--workflow-profile", profile, "--configfile", config),
    ]


class Stopped(Exception):
    """A signal, its argument, has asked the run to end."""


class Run:
    """Snakemake, in a process group of its own: a terminal's Ctrl-C reaches this script alone."""

    def __init__(self, config: str, profile: str) -> None:
        self._command = command(config, profile)
        settings = read_yaml(Path(profile, "config.yaml"))
        self._elsewhere = "executor" in settings
        # In a bucket, results are looked after by Snakemake alone.
        self.results_here = "default-storage-provider" not in settings
        self._process: subprocess.Popen[bytes] | None = None
        self._signals: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, self._stop)

    def snakemake(self, *arguments: str) -> int:
        """Snakemake's exit status.

        Raises:
            Stopped: after a signal; nothing of the run is at work any more.
        """
        if not self._signals:
            self._process = subprocess.Popen([*self._command, *arguments], process_group=0)
            status = self._process.wait()
        if self._signals:
            raise Stopped(self._signals[0])
        return status

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """First signal: Snakemake cancels its jobs elsewhere, those on this machine are ended. Second: all are
        killed. Finished files are complete, others not there, whatever the moment (`files.storage.atomic`).
        """
        self._signals.append(number)
        if self._process is None or self._process.poll() is not None:
            return
        with suppress(psutil.NoSuchProcess):
            snakemake = psutil.Process(self._process.pid)
            if self._elsewhere and len(self._signals) == 1:
                snakemake.send_signal(signal.SIGINT)
                return
            snakemake.suspend()  # it must start nothing more
            jobs = snakemake.children(recursive=True)
            snakemake.kill()
            end(jobs, patience=PATIENCE if len(self._signals) == 1 else 0)


def main(config: str, profile: str, *options: str) -> int:
    """Exit status of a run: Snakemake's, or 128 and the number of the signal that has stopped it.

    Raises:
        InputError: another run is at work in this checkout, or the records that were pulled are damaged.
    """
    if is_dry_run(options):
        os.execv(sys.executable, [*command(config, profile), *options])
    checkout = Path.cwd()
    hold(checkout)
    clean_up(checkout)
    unpack_records(checkout)
    run = Run(config, profile)
    try:
        if not run.results_here:
            return run.snakemake(*options)
        repair = Repair(checkout, str(read_yaml(Path(config))["study"]), Path(config))
        repair.set_aside_edited()
        try:
            status = to_end(run, repair.missing(), options)
            if status and repair.set_aside_damaged():
                status = to_end(run, repair.missing(), options)
        finally:
            repair.note()
    except Stopped as stopped:
        clean_up(checkout)
        print(f"\n{STOPPED}", file=sys.stderr)
        return 128 + int(stopped.args[0])
    return status


def to_end(run: Run, missing: Sequence[str], options: Sequence[str]) -> int:
    """Snakemake's exit status: for what had been made and is missing, then for the study.

    A few files are made one by one, in the order in which they were made before: Snakemake runs whatever follows
    from a file that it makes in the same go, also where the file comes out as it was.
    """
    if missing:
        print(f"making again what is missing: {', '.join(missing)}", file=sys.stderr, flush=True)
    alone = [[path] for path in missing] if len(missing) <= FEW else [list(missing)]
    for paths in alone:
        status = run.snakemake("--", *paths)
        if status:
            return status
    return run.snakemake(*options)


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except InputError as error:
        sys.exit(f"error: {error}")
