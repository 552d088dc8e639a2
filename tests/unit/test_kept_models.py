"""Models that lie here: what is damaged goes out of the way, what came wrong is not kept, all in one line each.

With the real commands: `tests/faults/test_damaged_files.py`, `tests/faults/test_networks.py`.
"""

import hashlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from checkouts import ROOT
from damage import flip
from selfrepair.errors import InputError
from selfrepair.files import hub_client
from selfrepair.files.vetted import note_vetted, seen_in

sys.path.insert(0, str(ROOT / "workflow/scripts"))

from common.kept_models import (
    WRONG,
    faults_of_models,
    fetched_again,
    folder_here,
    refuse_changed,
    set_aside_converted,
    wrong_downloads,
)


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    """Converted weights that were vetted."""
    folder = tmp_path / "models/tiny-1"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    note_vetted(folder, tmp_path, seen=seen_in(folder))
    return folder


def test_damaged_converted_weights_are_set_aside_whole(converted: Path, tmp_path: Path, capsys):
    set_aside_converted(converted, tmp_path)
    assert converted.exists()
    for _ in range(2):  # what was set aside before makes room
        flip(converted / "model.safetensors")
        set_aside_converted(converted, tmp_path)
        assert not converted.exists()
        aside = tmp_path / "damaged/tiny-1"
        assert (aside / "model.safetensors").read_bytes() != b"weights"
        (line,) = capsys.readouterr().err.splitlines()
        assert line == (
            f"warning: {converted}/model.safetensors: damaged: its content has changed since it was made; "
            f"set aside in {aside}/, to be made again"
        )
        converted.mkdir()
        (converted / "model.safetensors").write_bytes(b"weights")
        (converted / "config.json").write_text("{}")


def test_a_fault_for_each_damaged_file(converted: Path, tmp_path: Path):
    flip(converted / "config.json")

    def sha256(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def faults(model: dict[str, str]) -> list[str]:
        found = faults_of_models([(model, converted)], tmp_path, sha256=sha256, remedy="do this")
        return [str(fault) for fault in found]

    (fault,) = faults({"wheel": "a", "member": "b"})
    assert fault.startswith(f"{converted}/config.json: damaged: ")
    assert fault.endswith("; do this")
    # Of the user's own: not made again, and what was edited is no damage.
    own = {"name": str(converted)}
    (fault,) = faults(own)
    assert fault.endswith("; copy it again (or `touch` it if it is right)")
    (converted / "config.json").write_text('{"edited": true}')
    assert faults(own) == []


def test_a_directory_of_the_users_own_is_refused(converted: Path, tmp_path: Path):
    refuse_changed("m", converted, tmp_path)
    flip(converted / "model.safetensors")
    with pytest.raises(InputError, match=r"models\.m: the content of .*model\.safetensors has ch"):
        refuse_changed("m", converted, tmp_path)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Large files lie in the hub's cache under their SHA-256, behind a link; small ones under another name."""
    for folder in ("blobs", "snapshot"):
        (tmp_path / folder).mkdir()
    for file, name in {
        "right": hashlib.sha256(b"right").hexdigest(),
        "wrong": hashlib.sha256(b"another").hexdigest(),
        "small": "0" * 40,
    }.items():
        (tmp_path / "blobs" / name).write_text(file)
        (tmp_path / "snapshot" / file).symlink_to(Path("../blobs", name))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_file_that_is_not_what_the_hub_lists_is_fetched_again(hub_cache: Path, capsys):
    found = wrong_downloads([*(hub_cache / "snapshot").iterdir(), None])
    assert found == [hub_cache / "snapshot/wrong"]
    with fetched_again(found, WRONG) as any_wrong:
        assert any_wrong
        assert sorted(contents(hub_cache / "snapshot")) == ["right", "small"]
    assert len(contents(hub_cache / "blobs")) == 2
    assert "damaged: is not the file that the hub lists; to be fetched" in capsys.readouterr().err
    with fetched_again([], WRONG) as any_wrong:
        assert not any_wrong


def test_a_damaged_file_that_cannot_be_fetched_again_stays(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    snapshot, blobs = contents(hub_cache / "snapshot"), contents(hub_cache / "blobs")
    found = [hub_cache / "snapshot/wrong"]
    with pytest.raises(InputError, match="no network"), fetched_again(found, WRONG):
        raise InputError("no network")
    assert contents(hub_cache / "snapshot") == snapshot
    assert contents(hub_cache / "blobs") == blobs
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with (
        pytest.raises(InputError, match=r"copy it again \(HF_HUB_OFFLINE is set\)"),
        fetched_again(found, WRONG),
    ):
        pass
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub_cache / "elsewhere"))
    with (
        pytest.raises(InputError, match=r"copy it again \(it lies in"),
        fetched_again(found, WRONG),
    ):
        pass
    assert contents(hub_cache / "blobs") == blobs


def test_models_that_are_not_here_have_no_folder(converted: Path, tmp_path: Path):
    assert folder_here({"name": "./none"}, {}, tmp_path) is None
    assert folder_here({"name": "org/none"}, {}, tmp_path) is None
    assert folder_here({"name": str(converted)}, {}, tmp_path) == converted


def test_every_question_to_the_hub_has_a_limit():
    """Its client asks what a repository holds without any; limits that it sets stay."""
    client = hub_client._client()
    (*_, limit) = client.event_hooks["request"]
    request = SimpleNamespace(extensions={"timeout": {"connect": None, "read": 10, "write": None}})
    limit(request)
    limits = {"connect": hub_client.SILENCE, "read": 10, "write": hub_client.SILENCE}
    assert request.extensions["timeout"] == limits
