"""Charts are checked against Vega-Lite's schema whole, when a test asks for the specification, not part by part as
well: a fifth of the time of these tests."""

from collections.abc import Iterator

import pytest
from altair.utils.schemapi import debug_mode


@pytest.fixture(autouse=True, scope="session")
def checked_once() -> Iterator[None]:
    with debug_mode(False):
        yield
