"""Commands that measure the speed of this machine do so in no time."""

from functools import partial

import pytest

from selfrepair.command import check
from selfrepair.command.speed import replay_rate


@pytest.fixture(autouse=True)
def _one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A speed of a single replay is as good as any here."""
    monkeypatch.setattr(check, "replay_rate", partial(replay_rate, seconds=0.0))
