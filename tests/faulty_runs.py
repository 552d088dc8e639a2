"""Runs of the tiny study that tests disturb, and what must hold after the next one."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from checkouts import ROOT, Checkout, made_in

sys.path.insert(0, str(ROOT / "workflow/scripts"))

from common.fork_server import SWITCH
from common.records import FOLDER, record_files

CONFIG = "config/tiny.yaml"
# Results that are the same bytes whenever they are made; others note when they were.
SAME = {".parquet", ".safetensors", ".svg", ".md"}
# Rules whose jobs come before the sweeps.
EARLY = {"sample_documents", "cut_prompts", "find_parts", "clean_pass", "rank_tokens"}


@dataclass
class Study:
    """A checkout with the tiny study, which its tests run as `make study` does."""

    folder: Path
    # What the last run has told; not in the folder, whose disk may be full.
    screen: Path = Path("nothing told yet")

    def command(self, *options: str) -> list[str]:
        return [sys.executable, "workflow/scripts/study.py", CONFIG, "profiles/default", *options]

    def start(self, *options: str, **environment: str) -> subprocess.Popen[str]:
        """A run, which goes on."""
        self.screen = Path(tempfile.mkdtemp(prefix="told-"), "told.txt")
        own = {"PYTHONPATH": str(self.folder / "workflow"), SWITCH: "always"}
        with self.screen.open("w") as screen:
            return subprocess.Popen(
                self.command(*options),
                cwd=self.folder,
                env=os.environ | own | environment,
                stdout=screen,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def told(self) -> list[str]:
        """The lines that the last run has told."""
        return self.screen.read_text(errors="replace").strip().splitlines()

    def run(self, *options: str, **environment: str) -> int:
        """The exit status of a run."""
        return self.start(*options, **environment).wait(timeout=1500)

    def change(self, **changes: object) -> None:
        path = self.folder / CONFIG
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))

    def results(self) -> dict[str, bytes]:
        """The content of each result and figure that is the same whenever it is made."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in made_in(self.folder)
            if path.suffix in SAME
        }

    def unfinished(self) -> list[Path]:
        return [path for path in made_in(self.folder) if path.name.endswith(".tmp")]

    def started(self) -> dict[str, float]:
        """When the job of each finished shard began, as Snakemake noted."""
        incomplete = self.folder / ".snakemake/incomplete"
        return {
            path: json.loads(record.read_text())["starttime"]
            for path, record in record_files(self.folder / FOLDER)
            if "/shard-" in path and not (incomplete / record.name).exists()
        }

    def back_to(self, keep: Callable[[str], bool]) -> None:
        """Take back what rules have made that are not to be kept: files, records and logs."""
        for path, record in record_files(self.folder / FOLDER):
            if not keep(json.loads(record.read_text())["rule"]):
                (self.folder / path).unlink(missing_ok=True)
                record.unlink()


def unchanged(before: dict[str, float], study: Study) -> bool:
    """Whether no shard that was finished before has been run again."""
    after = study.started()
    return all(after[path] == started for path, started in before.items())


def study_in(folder: Path, finished: Checkout, *, keep: Callable[[str], bool]) -> Study:
    """A copy of the finished study, as it was when only these rules had been run."""
    study = Study(finished.copy(folder).folder)
    (study.folder / CONFIG).write_text(yaml.safe_dump(finished.config))
    study.back_to(keep)
    return study


def processes_of(run: subprocess.Popen[str]) -> list[psutil.Process]:
    """A run and all that it has started and that is alive."""
    try:
        first = psutil.Process(run.pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill -9, all stopped first so that none sees another die."""
    left = list(processes)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in left:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
    psutil.wait_procs(left, timeout=30)


def is_job(process: psutil.Process, script: str) -> bool:
    """Whether a process runs this script, by itself or as a fork, which has the script's name; the client of
    a fork does not."""
    python, *arguments = process.cmdline() or [""]
    if "python" not in python or any("fork_client.py" in argument for argument in arguments):
        return False
    if any("fork_server" in argument for argument in arguments):
        return process.name() == f"{script}.py"[:15]
    return bool(arguments) and arguments[-1].endswith(f"{script}.py")


def wait_for_job(run: subprocess.Popen[str], script: str) -> psutil.Process:
    """The process of a job of a run, as soon as there is one."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert run.poll() is None, "the run has ended without such a job"
        for process in processes_of(run):
            with suppress(psutil.Error):
                if is_job(process, script):
                    return process
        time.sleep(0.05)
    raise AssertionError(f"no job of {script} in time")
