"""One undisturbed run is the reference of all; faults start from copies that are finished in part."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from checkouts import Checkout
from faulty_runs import EARLY, Study, kill, processes_of, study_in


@pytest.fixture
def half(finished: Checkout, tmp_path: Path) -> Study:
    """The study as it was before its first sweep."""
    return study_in(tmp_path / "half", finished, keep=EARLY.__contains__)


@pytest.fixture
def undrawn(finished: Checkout, tmp_path: Path) -> Study:
    """The study as it was before its first figure: what is left to do takes seconds."""
    return study_in(tmp_path / "undrawn", finished, keep=lambda rule: not rule.startswith("draw_"))


@pytest.fixture
def whole(finished: Checkout, tmp_path: Path) -> Study:
    """A copy of the finished study."""
    return study_in(tmp_path / "whole", finished, keep=lambda rule: True)


@pytest.fixture(scope="session")
def same(finished: Checkout) -> Callable[..., None]:
    """Asserts that a study's results are those of the undisturbed run."""
    expected = Study(finished.folder).results()
    assert len(expected) > 50

    def check(study: Study, *, all_of_it: bool = True) -> None:
        found = study.results()
        assert not all_of_it or sorted(found) == sorted(expected)
        assert [path for path in found if found[path] != expected[path]] == []
        assert study.unfinished() == []

    return check


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs root, to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(autouse=True)
def nothing_left_at_work(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ends what a failing test has left at work."""
    started: list[tuple[subprocess.Popen[str], Path]] = []
    original = Study.start

    def start(study: Study, *options: str, **environment: str) -> subprocess.Popen[str]:
        run = original(study, *options, **environment)
        started.append((run, study.screen.parent))
        return run

    monkeypatch.setattr(Study, "start", start)
    yield
    for run, told in started:
        shutil.rmtree(told)
        if run.poll() is None:
            kill(processes_of(run))
            run.wait()
