"""Runs that are killed or stopped: the next one goes on from what is finished, with no hand in between."""

import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from checkouts import Checkout
from faulty_runs import EARLY, Study, kill, processes_of, study_in, wait_for_job

TABLES = ("--", "tables@gpt2")
AT_WORK = "another run is at work in this checkout"
STOPPED = "stopped: what is finished is kept; the same command goes on from there"


def unchanged(before: dict[str, float], study: Study) -> bool:
    """Whether no shard that was finished before has been run again."""
    after = study.started()
    return all(after[path] == started for path, started in before.items())


@pytest.mark.faults
def test_kills_of_the_whole_run_at_random_moments(finished: Checkout, half: Study, same, tmp_path):
    """KILLS: how many; each in a run that goes on from the last one, to its end, then from half again."""
    moments = random.Random(0)
    kills, study, number = int(os.environ.get("KILLS", "5")), half, 0
    before = study.started()
    while kills:
        run = study.start()
        try:
            run.wait(moments.uniform(0.5, 30))
        except Exception:
            kill(processes_of(run))
            run.wait()
            kills -= 1
            assert unchanged(before, study)
            before = study.started()
            continue
        assert run.returncode == 0, study.told()[-5:]
        same(study)
        number += 1
        study = study_in(tmp_path / f"again-{number}", finished, keep=EARLY.__contains__)
        before = study.started()
    assert study.run() == 0, study.told()[-5:]
    same(study)
    assert unchanged(before, study)


def test_a_killed_run_whose_job_goes_on_is_followed_by_one_that_ends_it(half: Study, same):
    """Killed are make's script and Snakemake, not the job; and there was no `--unlock`."""
    run = half.start(*TABLES)
    job = wait_for_job(run, "ablate")
    before = half.started()
    kill(process for process in processes_of(run) if process not in (job, job.parent()))
    run.wait()
    job.suspend()  # it would end by itself
    assert psutil.pid_exists(job.pid)
    assert (half.folder / ".snakemake/locks").exists()
    job.resume()
    assert half.run(*TABLES) == 0, half.told()[-5:]
    assert not psutil.pid_exists(job.pid)
    assert unchanged(before, half)
    same(half, part="tables")


@pytest.mark.faults
def test_a_killed_job_fails_its_run_and_is_run_again_by_the_next(half: Study, same):
    run = half.start(*TABLES)
    kill([wait_for_job(run, "measure_neurons")])
    assert run.wait() != 0
    assert half.unfinished() == []
    before = half.started()
    assert half.run(*TABLES) == 0, half.told()[-5:]
    assert unchanged(before, half)
    same(half, part="tables")


@pytest.mark.faults
@pytest.mark.parametrize(
    ("signals", "script"),
    [
        ([signal.SIGINT], "ablate"),
        ([signal.SIGINT, signal.SIGINT], "ablate"),
        ([signal.SIGTERM], "measure_iterative"),
        ([signal.SIGHUP], "tabulate_neurons"),
    ],
    ids=["Ctrl-C", "Ctrl-C twice", "SIGTERM", "SIGHUP"],
)
def test_a_stopped_run_says_so_in_one_line_and_goes_on_later(half: Study, same, signals, script):
    run = half.start(*TABLES)
    job = wait_for_job(run, script)
    for number in signals:
        os.killpg(run.pid, number)  # as a terminal does
        time.sleep(0.1)
    assert run.wait(timeout=60) == 128 + signals[0]
    assert half.told()[-1] == STOPPED
    assert not psutil.pid_exists(job.pid)
    assert not (half.folder / ".snakemake/locks").exists()
    assert half.unfinished() == []
    before = half.started()
    assert half.run(*TABLES) == 0, half.told()[-5:]
    assert unchanged(before, half)
    same(half, part="tables")


def test_a_second_run_is_refused_in_one_line(finished: Checkout, whole: Study):
    """Of the same study or another, by make or by Snakemake itself; a dry run is not."""
    whole.change(statistics={"resamples": 1100})
    first = whole.start("--", "tables@gpt2")
    wait_for_job(first, "decompose").suspend()
    told = whole.folder / "told.txt"
    (whole.folder / "first.txt").unlink(missing_ok=True)
    told.rename(whole.folder / "first.txt")
    assert whole.run() == 1
    (line,) = whole.told()
    assert line.startswith(f"error: {AT_WORK} (process {first.pid}, since 20")
    assert whole.run("--dry-run", "--", "tables@gpt2") == 0
    done = Checkout(whole.folder, finished.config).snakemake("--forcerun", "save_vega")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith(f"error: {AT_WORK}")
    os.killpg(first.pid, signal.SIGTERM)
    assert first.wait(timeout=60) == 128 + signal.SIGTERM


@pytest.mark.faults
def test_a_config_that_changes_between_two_runs_leaves_nothing_of_the_other(half: Study, same):
    config = half.folder / "config/tiny.yaml"
    stated = config.read_text()
    before = half.started()
    half.change(seed=1)
    run = half.start(*TABLES)
    wait_for_job(run, "clean_pass")
    kill(processes_of(run))
    run.wait()
    config.write_text(stated)
    assert half.run(*TABLES) == 0, half.told()[-5:]
    assert set(before) <= set(half.started())
    same(half, part="tables")


@pytest.mark.faults
def test_a_long_path_with_spaces_and_other_letters(finished: Checkout, tmp_path: Path, same):
    name = f"Übung mit Leerzeichen, «{'ж' * 60}»"
    study = study_in(tmp_path / name / ("y" * 60), finished, keep=EARLY.__contains__)
    assert len(str(study.folder)) > 200 or len(os.fsencode(study.folder)) > 200
    assert study.run() == 0, study.told()[-5:]
    same(study)


@pytest.mark.faults
@pytest.mark.parametrize("locale", ["C", "tr_TR.UTF-8"])
def test_another_umask_and_locale(half: Study, same, locale):
    before = os.umask(0o077)
    try:
        assert half.run(*TABLES, LC_ALL=locale, LANG=locale) == 0, half.told()[-5:]
    finally:
        os.umask(before)
    same(half, part="tables")
