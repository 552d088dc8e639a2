"""One run at a time in a checkout; what a killed run leaves does not stand in the way of the next."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from checkouts import ROOT
from faulty_runs import kill, processes_of

pytestmark = pytest.mark.slow

# Holds the lock, starts a job that inherits it, and waits.
HOLDER = """
import subprocess, sys
sys.path.insert(0, {scripts!r})
from pathlib import Path
from common.one_run import clean_up, hold
from selfrepair.errors import InputError
try:
    hold(Path())
except InputError as error:
    sys.exit(f"error: {{error}}")
clean_up(Path())
job = subprocess.Popen(["sleep", "60"])
print(job.pid, flush=True)
job.wait()
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts a run in a folder; what is left of all is ended afterwards."""
    runs: list[subprocess.Popen[str]] = []

    def started() -> subprocess.Popen[str]:
        code = HOLDER.format(scripts=str(ROOT / "workflow/scripts"))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        run = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, text=True, **pipes)
        runs.append(run)
        return run

    yield started
    for run in runs:
        kill(processes_of(run))
        run.communicate()


def job_of(run: subprocess.Popen[str]) -> int:
    """The process of a run's job, once it holds the lock."""
    assert run.stdout
    return int(run.stdout.readline())


def test_a_second_run_is_refused_with_the_first_ones_process(start):
    first = start()
    job_of(first)
    told = start().communicate(timeout=60)[1]
    assert told.startswith(f"error: another run is at work in this checkout (process {first.pid}, ")
    assert len(told.splitlines()) == 1


def test_jobs_of_a_killed_run_hold_the_lock_until_the_next_run_ends_them(start, tmp_path):
    first = start()
    job = job_of(first)
    first.kill()
    first.wait()
    second = start()
    assert job_of(second) != job
    assert (
        not Path(f"/proc/{job}/cmdline").exists() or not Path(f"/proc/{job}/cmdline").read_bytes()
    )
    owner = json.loads((tmp_path / ".snakemake/run.lock").read_text())
    assert owner["pid"] == second.pid


def test_a_run_on_another_machine_is_left_alone(start, tmp_path):
    """Its lock is seen on a shared file system, its processes are not."""
    first = start()
    job_of(first)
    owner = {"pid": first.pid, "host": "elsewhere", "since": "2026-01-01 00:00:00"}
    (tmp_path / ".snakemake/run.lock").write_text(json.dumps(owner))
    told = start().communicate(timeout=60)[1]
    assert f"(process {first.pid} on elsewhere, since 2026-01-01 00:00:00)" in told
    assert first.poll() is None


def test_what_a_killed_run_left_is_removed_and_nothing_else(start, tmp_path):
    results = tmp_path / "results/tiny"
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    results.mkdir(parents=True)
    for name in (".heads.parquet.123.tmp", "heads.parquet", ".notes.tmp"):
        (results / name).touch()
    job_of(start())
    assert {path.name for path in results.iterdir()} == {"heads.parquet", ".notes.tmp"}
    assert not (tmp_path / ".snakemake/locks").exists()
