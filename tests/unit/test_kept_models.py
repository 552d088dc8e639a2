"""Models that lie here: what is damaged goes out of the way, what came wrong is not kept, all in one line each.

With the real commands: `tests/faults/test_damaged_files.py`, `tests/faults/test_networks.py`.
"""

import hashlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from checkouts import ROOT
from damage import flip
from selfrepair.errors import InputError
from selfrepair.files import hub_client
from selfrepair.files.vetted import note_vetted

sys.path.insert(0, str(ROOT / "workflow/scripts"))

from common.kept_models import (
    WRONG,
    delete_downloads,
    faults_of_models,
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
    note_vetted(folder, tmp_path)
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

    (fault,) = faults_of_models([converted], tmp_path, sha256=sha256, remedy="do this")
    assert str(fault).startswith(f"{converted}/config.json: damaged: ")
    assert str(fault).endswith("; do this")


def test_a_directory_of_the_users_own_is_refused(converted: Path, tmp_path: Path):
    refuse_changed("m", converted, tmp_path)
    flip(converted / "model.safetensors")
    with pytest.raises(InputError, match=r"models\.m: the content of .*model\.safetensors has ch"):
        refuse_changed("m", converted, tmp_path)


def test_a_file_that_is_not_what_the_hub_lists_is_deleted(tmp_path: Path, capsys):
    """Large files lie in the hub's cache under their SHA-256, behind a link; small ones under another name."""
    for folder in ("blobs", "snapshot"):
        (tmp_path / folder).mkdir()
    for file, name in {
        "right": hashlib.sha256(b"right").hexdigest(),
        "wrong": hashlib.sha256(b"another").hexdigest(),
        "small": "0" * 40,
    }.items():
        (tmp_path / "blobs" / name).write_text(file)
        (tmp_path / "snapshot" / file).symlink_to(tmp_path / "blobs" / name)
    found = wrong_downloads((tmp_path / "snapshot").iterdir())
    assert found == [tmp_path / "snapshot/wrong"]
    assert delete_downloads(found, WRONG)
    assert sorted(path.name for path in (tmp_path / "snapshot").iterdir()) == ["right", "small"]
    assert len(list((tmp_path / "blobs").iterdir())) == 2
    assert "damaged: is not the file that the hub lists; deleted" in capsys.readouterr().err
    assert not delete_downloads([], WRONG)


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
