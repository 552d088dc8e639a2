"""A browser without a network, and the page of a made up study in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from page_study import study_models_of, write_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# A page is drawn in a second; a machine that does other work may take many.
PATIENCE_MS = 40_000


# Not of the session: while it lasts, nothing else in this process can run an event loop.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """This machine's Chromium; tests are skipped where there is none, or nothing that drives it."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    driver = pytest.importorskip("playwright.sync_api", reason="needs pip install '.[browser]'")
    with driver.sync_playwright() as playwright:
        # A sandbox is not to be had by root.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = playwright.chromium.launch(executable_path=path, args=arguments)
        yield started
        started.close()


@pytest.fixture(scope="session")
def study_page(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The page of a study of so many models, each made once."""
    pages: dict[int, Path] = {}

    def page(count: int = 2) -> Path:
        if count not in pages:
            folder = tmp_path_factory.mktemp(f"page-{count}")
            pages[count] = write_page(folder, study_models_of(folder, count))
        return pages[count]

    return page


@dataclass
class Opened:
    """A page in the browser; errors: what its scripts and its console said was wrong; asked: addresses that it
    asked for, other than its own."""

    page: Any
    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def address(self) -> str:
        return str(self.page.evaluate("location.hash"))

    def cell(self, model: str, layer: int, head: int) -> Any:
        grid = self.page.locator(f'.grid[data-model="{model}"]')
        return grid.locator(f'[data-layer="{layer}"][data-head="{head}"]')

    def drawn(self) -> None:
        """Wait until every chart is drawn."""
        self.page.wait_for_function(
            "[...document.querySelectorAll('.chart')].every((chart) => chart.querySelector('svg'))"
        )


@pytest.fixture
def opened(browser: Any, study_page: Callable[[int], Path]) -> Iterator[Callable[..., Opened]]:
    """Open the study's page without a network: opened(address, models=…, and options of the context)."""
    contexts = []

    def open_page(address: str = "", *, models: int = 2, **options: Any) -> Opened:
        context = browser.new_context(offline=True, **options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        found = Opened(page)
        page.on("pageerror", lambda error: found.errors.append(str(error)))
        page.on("console", lambda message: _note(found, message))
        path = study_page(models)
        page.on("request", lambda request: found.asked.append(request.url))
        page.goto(path.as_uri() + address)
        page.wait_for_selector("html[data-ready]")
        found.asked = [url for url in found.asked if not url.startswith(path.as_uri())]
        return found

    yield open_page
    for context in contexts:
        context.close()


def _note(found: Opened, message: Any) -> None:
    if message.type in ("error", "warning"):
        found.errors.append(message.text)
