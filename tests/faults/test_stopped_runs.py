"""Runs that are killed or stopped: the next one goes on from what is finished, with no hand in between."""

import os
import random
import signal
from pathlib import Path

import pytest

from checkouts import Checkout
from faulty_runs import EARLY, Study, kill, processes_of, study_in, unchanged, wait_for_job

TABLES = ("--", "tables@gpt2")
# Two jobs of some seconds.
FIGURES = (
    *("--", "figures/tiny/E1-self-repair-by-depth.svg"),
    "figures/tiny/gpt2/E9-effect-of-the-top-neuron.svg",
)
AT_WORK = "another run is at work in this checkout"
STOPPED = "stopped: what is finished is kept; the same command goes on from there"


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


def test_a_killed_run_whose_job_goes_on_is_followed_by_one_that_ends_it(undrawn: Study, same):
    """Killed are make's script and Snakemake, not the job; and there was no `--unlock`."""
    run = undrawn.start(*FIGURES)
    job = wait_for_job(run, "draw")
    kill(processes_of(run)[:2])
    run.wait()
    job.suspend()  # it would end by itself
    assert (undrawn.folder / ".snakemake/locks").exists()
    assert undrawn.run(*FIGURES) == 0, undrawn.told()[-5:]
    assert undrawn.told()[0].startswith("ending what a killed run has left at work: processes ")
    assert not job.is_running()
    same(undrawn, all_of_it=False)


@pytest.mark.faults
def test_a_killed_job_fails_its_run_and_is_run_again_by_the_next(half: Study, same):
    run = half.start(*TABLES)
    kill([wait_for_job(run, "measure_neurons")])
    assert run.wait() != 0
    assert half.unfinished() == []
    before = half.started()
    assert half.run(*TABLES) == 0, half.told()[-5:]
    assert unchanged(before, half)
    same(half, all_of_it=False)


@pytest.mark.parametrize(
    "signals",
    [
        [signal.SIGTERM],
        pytest.param([signal.SIGINT], marks=pytest.mark.faults),
        pytest.param([signal.SIGINT, signal.SIGINT], marks=pytest.mark.faults),
        pytest.param([signal.SIGHUP], marks=pytest.mark.faults),
    ],
    ids=["SIGTERM", "Ctrl-C", "Ctrl-C twice", "SIGHUP"],
)
def test_a_stopped_run_says_so_in_one_line_and_goes_on_later(undrawn: Study, same, signals):
    run = undrawn.start(*FIGURES)
    job = wait_for_job(run, "draw")
    for number in signals:
        os.killpg(run.pid, number)  # as a terminal does
    assert run.wait(timeout=300) == 128 + signals[0]
    assert undrawn.told()[-1] == STOPPED
    assert not job.is_running()
    assert not (undrawn.folder / ".snakemake/locks").exists()
    assert undrawn.unfinished() == []
    assert undrawn.run(*FIGURES) == 0, undrawn.told()[-5:]
    same(undrawn, all_of_it=False)


def test_a_second_run_is_refused_in_one_line(finished: Checkout, undrawn: Study):
    """Of the same study or another, by make or by Snakemake itself; a dry run is not."""
    first = undrawn.start(*FIGURES)
    wait_for_job(first, "draw")
    snakemake = processes_of(first)[1]
    snakemake.suspend()
    assert undrawn.run() == 1
    (line,) = undrawn.told()
    assert line.startswith(f"error: {AT_WORK} (process {first.pid}, since 20")
    assert undrawn.run("--dry-run", *FIGURES) == 0
    by_hand = Checkout(undrawn.folder, finished.config | {"study": "another"})
    done = by_hand.snakemake("figures/another/vega.js")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith(f"error: {AT_WORK}")
    snakemake.resume()
    os.killpg(first.pid, signal.SIGTERM)
    assert first.wait(timeout=300) == 128 + signal.SIGTERM


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
    same(half, all_of_it=False)


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
    same(half, all_of_it=False)
