"""How a run is shown: one live view on a terminal, plain lines elsewhere."""

import os
from typing import Any, Protocol, TextIO

from tqdm import tqdm

from .jobs import Job, Jobs

interval = tqdm.format_interval
# Without a terminal, how much a measurement must have gone on, in both, before it is told again.
LINE_SECONDS, LINE_PERCENT = 60, 10
# Running jobs in the live view; a cluster may run hundreds.
ROWS = 12
# Columns of a bar in it.
BAR = 20


class View(Protocol):
    """What is told of a run, as it happens."""

    def start(self, job: Job) -> None: ...

    def report(self, job: Job) -> None: ...

    def end(self, job: Job) -> None: ...

    def say(self, text: str) -> None:
        """Lines for the user that are not about progress."""

    def close(self) -> None: ...


def view_of(jobs: Jobs, stream: TextIO, *, colours: bool) -> View:
    """The view that suits a stream."""
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return LiveView(jobs, stream, colours=colours)
    return Lines(jobs, stream)


def time_left(jobs: Jobs) -> str:
    """The time left for all jobs: "about", or "at least" while jobs of unknown length are to come."""
    seconds, unknown = jobs.seconds_left()
    if seconds is None or (unknown and seconds < 1):
        return "? left"
    return f"{'at least' if unknown else 'about'} {interval(seconds)} left"


class Lines:
    """A line when a measurement starts, when any job has ended, and now and then between."""

    def __init__(self, jobs: Jobs, stream: TextIO) -> None:
        self._jobs, self._stream = jobs, stream
        self._told: dict[int, tuple[float, int]] = {}
        self.say(f"{jobs.total} jobs to run")

    def start(self, job: Job) -> None:
        if job.measures:
            self._told[id(job)] = (0.0, 0)
            self._tell(f"{job.title} has started")

    def report(self, job: Job) -> None:
        seconds, percent = self._jobs.seconds_of(job), job.percent
        before = self._told.get(id(job), (0.0, 0))
        more = seconds - before[0] >= LINE_SECONDS and percent - before[1] >= LINE_PERCENT
        if more and percent < 100:  # soon told by its end
            self._told[id(job)] = (seconds, percent)
            self._tell(f"{job.title}: {percent} %, {job.left} left")

    def end(self, job: Job) -> None:
        self._told.pop(id(job), None)
        self._tell(f"{job.title} took {interval(self._jobs.seconds_of(job))}")

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        pass

    def _tell(self, text: str) -> None:
        total = self._jobs.total
        done = f"{self._jobs.done:{len(str(total))}}/{total}"
        self.say(f"[{done}, {time_left(self._jobs)}] {text}")


class LiveView:
    """The jobs done of all, and a row for each running job; other lines scroll by above."""

    def __init__(self, jobs: Jobs, stream: TextIO, *, colours: bool) -> None:
        # Imported here because every Snakemake process, of each job too, imports this module.
        from rich.console import Console
        from rich.live import Live

        self._jobs = jobs
        self._console = Console(file=stream, no_color=not colours or None, highlight=False)
        self._live = Live(
            get_renderable=self._table,
            console=self._console,
            refresh_per_second=2,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def start(self, job: Job) -> None:
        self._live.refresh()

    report = end = start

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        self._live.stop()

    def _table(self) -> Any:
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, overflow="ellipsis")
        for width in (BAR, 7, 15):
            table.add_column(no_wrap=True, min_width=width)
        jobs = self._jobs
        count = f"{jobs.done} of {jobs.total}"
        table.add_row("all jobs", _bar(jobs.done, jobs.total), count, time_left(jobs))
        running = list(jobs.running.values())
        for job in running[:ROWS]:
            if not job.percent:
                since = f"for {interval(jobs.seconds_of(job))}"
                table.add_row(job.title, "", "", since)
            else:
                share = f"{job.percent:3d} %"
                table.add_row(job.title, _bar(job.percent, 100), share, f"{job.left} left")
        if len(running) > ROWS:
            table.add_row(f"and {len(running) - ROWS} more", "", "", "")
        return table


def _bar(done: float, total: float) -> Any:
    from rich.progress_bar import ProgressBar

    return ProgressBar(total=total, completed=done, width=BAR)
