"""The documentation site: its navigation names pages that exist, and none is left out. `make docs` builds it, and
checks every link."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from documented import ROOT

SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def pages(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        for part in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [part] if isinstance(part, str) else pages(part)


NAMED = list(pages(SITE["nav"]))


def test_every_page_of_the_navigation_exists():
    assert [page for page in NAMED if not (ROOT / page).is_file()] == []
    assert len(NAMED) == len(set(NAMED))


def test_no_page_is_left_out():
    written = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")}
    assert written <= set(NAMED)


def test_what_the_site_is_made_with_exists_and_is_pinned():
    hooks = [*SITE["hooks"], *SITE["extra"]["polyfills"]]
    assert [hook for hook in hooks if not (ROOT / hook).is_file()] == []
    assert SITE["strict"] is True
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (extra,) = re.findall(r"^docs = \[(.*?)\]", project.replace("[python]", ""), re.M | re.S)
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower()
    for package in re.findall(r'"([\w-]+)', extra):
        assert re.search(rf"^{package}==", pins, re.M), package
