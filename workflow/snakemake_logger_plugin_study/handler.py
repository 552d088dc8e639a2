"""From what Snakemake logs to what is shown."""

import contextlib
import sys
from logging import WARNING, LogRecord
from typing import Any

from snakemake.common import NOTHING_TO_BE_DONE_MSG
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from .jobs import Jobs
from .stderr import DivertedStderr
from .views import View, interval, view_of


class LogHandler(LogHandlerBase):
    """Tells how a run gets on, instead of Snakemake's own lines; Snakemake's log file keeps those.

    Who asks Snakemake for a dry run, or for more or less than the profile does (--verbose, --quiet,
    --printshellcmds, ...), gets what Snakemake says.
    """

    writes_to_file = needs_rulegraph = has_formatter = False
    has_filter = True
    # Where jobs write what they have to say.
    descriptor = 2

    def __post_init__(self) -> None:
        asked = self.common_settings
        self._on = set(asked.quiet or ()) <= {Quietness.RULES, Quietness.HOST} and not any(
            (asked.dryrun, asked.stdout, asked.verbose, asked.debug_dag, asked.printshellcmds)
        )
        self._stderr: DivertedStderr | None = None
        self._jobs: Jobs | None = None
        self._view: View | None = None
        # Told only if nothing is run: of a report, say.
        self._before: list[str] = []

    @property
    def writes_to_stream(self) -> bool:
        return self._on

    def emit(self, record: LogRecord) -> None:
        if self._on:
            with contextlib.suppress(BrokenPipeError):
                self._tell(record)

    def close(self) -> None:
        """Show the end of what is known, and let standard error lead to the screen again."""
        if self._stderr is not None:
            self._stderr.end()
        if self._view is not None:
            self._view.close()
        if self._jobs is not None:
            took = interval(self._jobs.seconds())
            self._say(f"{self._jobs.done} of {self._jobs.total} jobs done after {took}")
        for text in self._before:
            self._say(text)
        if self._stderr is not None:
            self._stderr.screen.close()
        self._stderr = self._view = self._jobs = None
        self._before = []
        super().close()

    def _tell(self, record: Any) -> None:
        event = getattr(record, "event", None)
        if event == LogEvent.WORKFLOW_STARTED:
            self._before = []
            self._stderr = DivertedStderr(self.descriptor, self._said)
        elif event == LogEvent.RUN_INFO and self._stderr is not None:
            self._jobs = Jobs({rule: n for rule, n in record.stats.items() if rule != "total"})
            colours = not self.common_settings.nocolor
            self._view = view_of(self._jobs, self._stderr.screen, colours=colours)
        elif event in (LogEvent.JOB_INFO, LogEvent.JOB_FINISHED, LogEvent.JOB_ERROR):
            if self._jobs is not None and self._view is not None:
                self._tell_job(event, record, self._jobs, self._view)
        elif record.levelno >= WARNING or record.msg == NOTHING_TO_BE_DONE_MSG:
            self._say(self.format(record))
        elif self._stderr is None and event is None:
            self._before.append(self.format(record))

    def _tell_job(self, event: LogEvent, record: Any, jobs: Jobs, view: View) -> None:
        if event == LogEvent.JOB_INFO:
            log = ", ".join(record.log)
            if job := jobs.start(record.jobid, record.rule_name, record.wildcards, log):
                view.start(job)
        elif event == LogEvent.JOB_FINISHED:
            if job := jobs.end(record.job_id):
                view.end(job)
        elif job := jobs.end(record.jobid, failed=True):
            view.say(f"failed: {job.title}  [{job.log}]")

    def _said(self, line: str) -> None:
        """A line that a job, or anybody else in this run, wrote to standard error."""
        with self.lock or contextlib.nullcontext():
            job = self._jobs.report(line) if self._jobs else None
            if job and self._view:
                self._view.report(job)
            elif line:
                self._say(line)

    def _say(self, text: str) -> None:
        if self._view is not None:
            self._view.say(text)
        else:
            print(text, file=self._stderr.screen if self._stderr else sys.stderr, flush=True)
