"""One undisturbed run is the reference of all; faults start from copies that are finished in part."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import faulty_runs
from checkouts import Checkout, finished_study
from faulty_runs import EARLY, Study, kill, processes_of, study_in

# Results of the model, without what is compared with the authors' numbers.
MODEL = "results/tiny/gpt2/"


@pytest.fixture(scope="session")
def finished(shared_folder: Path, tiny_config: dict) -> Checkout:
    """The study, run to its end; do not change it."""
    return finished_study(shared_folder, tiny_config)


@pytest.fixture
def half(finished: Checkout, tmp_path: Path) -> Study:
    """The study as it was before its first sweep."""
    return study_in(tmp_path / "half", finished, keep=EARLY.__contains__)


@pytest.fixture
def whole(finished: Checkout, tmp_path: Path) -> Study:
    """A copy of the finished study."""
    return study_in(tmp_path / "whole", finished, keep=lambda rule: True)


@pytest.fixture
def same(finished: Checkout) -> Callable[..., None]:
    """Asserts that a study's results are those of the undisturbed run."""
    expected = Study(finished.folder).results()
    assert len(expected) > 50

    def check(study: Study, *, part: str = "all") -> None:
        """part: all, or tables and what is behind them."""
        found = study.results()
        due = expected
        if part == "tables":
            due = {
                path: expected[path]
                for path in expected
                if path.startswith(MODEL) and "published" not in path
            }
        assert sorted(found.keys() & due.keys()) == sorted(due)
        assert [path for path in found if found[path] != expected[path]] == []
        assert study.unfinished() == []

    return check


@pytest.fixture(autouse=True)
def nothing_left_at_work(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ends what a failing test has left at work."""
    started: list[subprocess.Popen[str]] = []
    original = Study.start

    def start(study: Study, *options: str, **environment: str) -> subprocess.Popen[str]:
        run = original(study, *options, **environment)
        started.append(run)
        return run

    monkeypatch.setattr(faulty_runs.Study, "start", start)
    yield
    for run in started:
        if run.poll() is None:
            kill(processes_of(run))
            run.wait()
