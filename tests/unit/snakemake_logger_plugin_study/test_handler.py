"""What a run that Snakemake logs looks like on a terminal and in a file."""

import logging
import os
import pty
import threading

import pytest
from snakemake.settings.enums import Quietness
from snakemake.settings.types import OutputSettings
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

from snakemake_logger_plugin_study import LogHandler

SHARD = {"model": "gpt2", "shard": "0", "shards": "2"}


def settings(**asked: object) -> OutputSettings:
    return OutputSettings(**({"quiet": {Quietness.RULES}} | asked))


class Told:
    """A handler whose standard error is a descriptor, and all that comes out at the other end."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing, self._parts = reading, writing, []
        self.handler = LogHandler(settings(), None)
        self.handler.descriptor = writing
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def log(self, event: LogEvent | None, level: int = logging.INFO, **facts: object) -> None:
        self.handler.handle(logging.makeLogRecord({"event": event, "levelno": level, **facts}))

    def by_a_job(self, text: str) -> None:
        os.write(self._writing, text.encode())

    def end(self) -> str:
        self.handler.close()
        os.close(self._writing)
        self._thread.join()
        os.close(self._reading)
        return b"".join(self._parts).decode()

    def _read(self) -> None:
        try:
            while part := os.read(self._reading, 4096):
                self._parts.append(part)
        except OSError:  # how a terminal says that nobody writes any more
            pass


@pytest.fixture
def piped() -> Told:
    return Told(*os.pipe())


@pytest.fixture
def on_terminal(monkeypatch) -> Told:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return Told(*pty.openpty())


def begin(told: Told) -> None:
    told.log(None, msg="Building DAG of jobs...")
    told.log(LogEvent.WORKFLOW_STARTED, msg="Workflow has started!")
    told.log(LogEvent.RUN_INFO, msg="Job stats", stats={"clean_pass": 2, "all": 1, "total": 3})
    told.log(None, msg="Select jobs to execute...")
    told.log(LogEvent.JOB_STARTED, msg="Execute 1 jobs...", jobs=[7])
    start(told)


def start(told: Told) -> None:
    facts = {"jobid": 7, "rule_name": "clean_pass", "wildcards": SHARD, "log": ["a.log"]}
    told.log(LogEvent.JOB_INFO, msg="rule clean_pass", **facts)


def test_snakemake_finds_the_plugin():
    assert LoggerPluginRegistry().get_plugin("study").log_handler is LogHandler


def test_in_a_file_there_are_lines_and_no_codes(piped):
    begin(piped)
    piped.by_a_job("gpt2 clean pass 1/2:  50 % after 00:10, 00:10 left\n")
    piped.by_a_job("bar 1 %\rbar 2 %\rbar 3 %\nwarning: look\n")
    piped.handler._stderr.end()  # all of this is read
    piped.log(LogEvent.JOB_FINISHED, msg="Finished jobid: 7", job_id=7)
    lines = piped.end().splitlines()
    assert lines == [
        "2 jobs to run",
        "[0/2, ? left] clean pass 1/2 of gpt2 has started",
        "bar 3 %",
        "warning: look",
        "[1/2, about 00:00 left] clean pass 1/2 of gpt2 took 00:00",
        "1 of 2 jobs done after 00:00",
    ]


def test_on_a_terminal_a_live_view_ends_as_one_line(on_terminal):
    begin(on_terminal)
    on_terminal.by_a_job("gpt2 clean pass 1/2:  50 % after 00:10, 00:11 left\n")
    on_terminal.by_a_job("warning: look\n")
    on_terminal.handler._stderr.end()
    on_terminal.log(LogEvent.JOB_FINISHED, msg="Finished jobid: 7", job_id=7)
    text = on_terminal.end()
    for part in ("0 of 2", "clean pass 1/2 of gpt2", " 50 %", "00:11 left", "warning: look"):
        assert part in text
    assert "Select jobs" not in text
    # The cursor is shown again, and nothing is drawn over the last line.
    _, end = text.rsplit("\x1b[?25h", 1)
    assert end.splitlines()[-1].endswith("1 of 2 jobs done after 00:00")


@pytest.mark.parametrize("where", ["piped", "on_terminal"])
def test_errors_are_told_and_standard_error_leads_back(where, request):
    told = request.getfixturevalue(where)
    begin(told)
    told.log(LogEvent.JOB_ERROR, logging.ERROR, msg="Error in rule", jobid=7)
    told.log(LogEvent.ERROR, logging.ERROR, msg="died with SIGKILL")
    told.handler.close()
    told.by_a_job("error: the last line\n")
    lines = told.end().splitlines()
    assert lines[-1] == "error: the last line"
    assert any(line.endswith("failed: clean pass 1/2 of gpt2  [a.log]") for line in lines)
    assert any("died with SIGKILL" in line for line in lines)


def test_a_job_that_is_tried_again_counts_once(piped):
    begin(piped)
    piped.log(LogEvent.JOB_ERROR, logging.ERROR, msg="Error in rule", jobid=7)
    start(piped)
    piped.log(LogEvent.JOB_FINISHED, msg="Finished jobid: 7", job_id=7)
    assert piped.end().splitlines()[-1].startswith("1 of 2 jobs done")


def test_what_snakemake_says_is_shown_if_it_runs_no_job(piped, capsys):
    piped.log(None, msg="Report created: page.html.")
    assert piped.end() == ""
    assert capsys.readouterr().err == "Report created: page.html.\n"


def test_a_finished_study_is_said_to_be_one(piped):
    begun = {"msg": "Workflow has started!"}
    piped.log(LogEvent.WORKFLOW_STARTED, **begun)
    piped.log(None, msg="Building DAG of jobs...")
    piped.log(None, msg="Nothing to be done (all requested files are present and up to date).")
    assert piped.end().startswith("Nothing to be done")


@pytest.mark.parametrize(
    "asked",
    [
        {"dryrun": True, "stdout": True},
        {"verbose": True},
        {"printshellcmds": True},
        {"quiet": {Quietness.ALL}},
        {"quiet": {Quietness.RULES, Quietness.PROGRESS}},
    ],
)
def test_who_asks_snakemake_for_more_or_less_gets_its_own_lines(asked, capsys):
    handler = LogHandler(settings(**asked), None)
    assert not handler.writes_to_stream
    handler.handle(logging.makeLogRecord({"msg": "hello", "levelno": logging.ERROR}))
    handler.close()
    assert capsys.readouterr().err == ""
