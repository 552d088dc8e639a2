"""Plain lines, by a clock that stands until it is moved."""

import io

from snakemake_logger_plugin_study.jobs import Jobs
from snakemake_logger_plugin_study.views import Lines, time_left, view_of

WILDCARDS = {"model": "gpt2", "shard": "0", "shards": "1"}


def told_of_a_measurement(reports: list[tuple[float, int]]) -> list[str]:
    """The lines about a sweep that reports a percentage after some seconds each."""
    now = 0.0
    jobs = Jobs({"ablate_zero": 1, "draw_E1": 1}, clock=lambda: now)
    stream = io.StringIO()
    view = Lines(jobs, stream)
    job = jobs.start(1, "ablate_zero", WILDCARDS, "")
    view.start(job)
    for now, percent in reports:  # noqa: B007 (the clock reads it)
        jobs.report(f"gpt2 zero 1/1: {percent:3d} % after 00:00, 07:00 left")
        view.report(job)
    jobs.end(1)
    view.end(job)
    return stream.getvalue().splitlines()


def test_progress_is_told_after_a_minute_and_ten_percent_more():
    lines = told_of_a_measurement(
        [(10, 2), (30, 40), (61, 45), (90, 80), (122, 49), (130, 90), (200, 100)]
    )
    assert lines == [
        "2 jobs to run",
        "[0/2, ? left] ablate zero 1/1 of gpt2 has started",
        "[0/2, at least 01:14 left] ablate zero 1/1 of gpt2: 45 %, 07:00 left",
        "[0/2, at least 00:14 left] ablate zero 1/1 of gpt2: 90 %, 07:00 left",
        "[1/2, ? left] ablate zero 1/1 of gpt2 took 03:20",
    ]


def test_the_time_left_says_when_it_is_a_lower_bound():
    now = 0.0
    jobs = Jobs({"draw_E1": 3, "measure_neurons": 1}, clock=lambda: now)
    assert time_left(jobs) == "? left"
    jobs.start(1, "draw_E1", {}, "")
    now = 5.0
    jobs.end(1)
    assert time_left(jobs) == "at least 00:10 left"


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(view_of(Jobs({}), Terminal(), colours=True), Lines)
