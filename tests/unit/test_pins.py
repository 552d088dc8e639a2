"""Every dependency is pinned: what `make setup` installs is decided by constraints.txt alone."""

import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PINS = [
    line.split("#")[0].strip()
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line.split("#")[0].strip()
]


def pinned() -> dict[str, str]:
    return {canonicalize_name(pin.split("==")[0]): pin.split("==")[1] for pin in PINS}


def requirements() -> dict[str, list[Requirement]]:
    """The dependencies of pyproject.toml, by extra; ours among them are left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    parsed = {extra: [Requirement(text) for text in group] for extra, group in groups.items()}
    return {e: [r for r in group if r.name != "selfrepair"] for e, group in parsed.items()}


def test_every_pin_is_one_version() -> None:
    for pin in PINS:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][0-9A-Za-z.!+]*", pin), pin
    assert len(pinned()) == len(PINS)


def test_every_dependency_is_pinned_to_a_version_that_it_allows() -> None:
    pins = pinned()
    for extra, group in requirements().items():
        for requirement in group:
            name = canonicalize_name(requirement.name)
            assert name in pins, f"{requirement} of [{extra}] has no pin in constraints.txt"
            assert requirement.specifier.contains(pins[name], prereleases=True), requirement


def test_what_they_need_in_turn_is_pinned_too() -> None:
    """Of everything that is installed here, as far as a dependency of ours leads to it."""
    pins = pinned()
    installed = {canonicalize_name(d.metadata["Name"]): d for d in distributions()}
    pending = [canonicalize_name(r.name) for group in requirements().values() for r in group]
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        # Not of an extra that is not installed; pip and setuptools come with a virtual environment.
        if name in seen or name not in installed or name in ("pip", "setuptools"):
            continue
        seen.add(name)
        assert name in pins, f"{name} is installed and has no pin in constraints.txt"
        for text in installed[name].requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                pending.append(canonicalize_name(requirement.name))
    assert len(seen) > 100
