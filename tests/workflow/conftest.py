"""A small study in a checkout of its own, run once; tests that change something take a copy."""

from collections.abc import Callable
from pathlib import Path

import pytest

from checkouts import Checkout, made_once, new_checkout


@pytest.fixture(scope="session")
def finished(shared_folder: Path, tiny_config: dict) -> Checkout:
    """The study, run to its end; do not change it."""

    def make(folder: Path) -> None:
        done = Checkout(new_checkout(folder), tiny_config).snakemake()
        assert done.returncode == 0, done.stdout + done.stderr
        (folder / "told.txt").write_text(done.stderr)

    checkout = Checkout(made_once(shared_folder / "finished", make), tiny_config)
    checkout.told = (checkout.folder / "told.txt").read_text()  # type: ignore[attr-defined]
    return checkout


@pytest.fixture
def copy_of_finished(finished: Checkout, tmp_path: Path) -> Checkout:
    return finished.copy(tmp_path / "repo")


@pytest.fixture
def fresh(tmp_path: Path, tiny_config: dict) -> Callable[[], Checkout]:
    return lambda: Checkout(new_checkout(tmp_path / "fresh"), tiny_config)
