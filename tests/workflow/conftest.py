"""A small study in a checkout of its own, run once; tests that change something take a copy."""

from collections.abc import Callable
from pathlib import Path

import pytest

from checkouts import Checkout, new_checkout


@pytest.fixture
def copy_of_finished(finished: Checkout, tmp_path: Path) -> Checkout:
    return finished.copy(tmp_path / "repo")


@pytest.fixture
def fresh(tmp_path: Path, tiny_config: dict) -> Callable[[], Checkout]:
    return lambda: Checkout(new_checkout(tmp_path / "fresh"), tiny_config)
