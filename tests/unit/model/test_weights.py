"""Where models come from: a name as it is, GGUF files of every origin converted once and as a whole."""

import hashlib
import os
import threading
import time
import zipfile
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType
from transformers import AutoModelForCausalLM

from gguf_files import tiny_model, write_gguf
from selfrepair.errors import InputError
from selfrepair.files.storage import file_sha256, read_json
from selfrepair.files.wheels import Wheel
from selfrepair.model import gguf
from selfrepair.model.weights import (
    RECORD,
    block_formats,
    converted_folder,
    model_location,
    weights_record,
)


def kept_wheel(cache: Path, name: str, files: dict[str, bytes]) -> Wheel:
    """A wheel that is in the cache already."""
    path = cache / "wheels" / f"{name}-1.0.whl"
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)
    return Wheel(name, "1.0", hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def wheels(tmp_path):
    content = {"model": {"model.gguf": b"weights"}, "a": {"x": b"wei"}, "b": {"x": b"ghts"}}
    return {name: kept_wheel(tmp_path, name, files) for name, files in content.items()}


@pytest.fixture
def made(monkeypatch):
    """The content of each file that a stand-in for the conversion was called with."""
    files: list[bytes] = []

    def convert(path: Path, folder: Path, *, name: str, requantise: str | None) -> dict:
        files.append(path.read_bytes())
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        return {"architecture": "none"}

    monkeypatch.setattr(gguf, "convert_gguf", convert)
    return files


Q8_0 = GGMLQuantizationType.Q8_0


def located(model, wheels, cache):
    return Path(model_location(model, wheels, cache, key="tiny"))


ENTRY = {"wheel": "model", "member": "model.gguf"}
WHOLE = hashlib.sha256(b"weights").hexdigest()
PARTS = {"parts": [{"wheel": w, "member": "x"} for w in ("a", "b")], "sha256": WHOLE}


def test_a_name_is_used_as_it_is(tmp_path):
    assert model_location({"name": "owner/model"}, {}, tmp_path, key="m") == "owner/model"
    assert weights_record("owner/model") is None


@pytest.mark.parametrize("form", ["wheel", "parts", "file", "directory"])
def test_every_form_is_converted_once_and_says_what_it_was_made_of(form, tmp_path, wheels, made):
    path = tmp_path / "here" / "model.gguf"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    model = {
        "wheel": ENTRY,
        "parts": PARTS,
        "file": {"gguf": str(path)},
        "directory": {"name": str(path.parent), "gguf": path.name, "sha256": WHOLE},
    }[form]
    for _ in range(2):
        found = located(model, wheels, tmp_path)
        assert found == converted_folder(model, wheels, tmp_path)
        assert (found / "config.json").is_file()
    assert made == [b"weights"]
    record = weights_record(str(found))
    assert record == read_json(found / RECORD)
    assert record["sha256"] == WHOLE
    assert (record["commit"], record["architecture"]) == (None, "none")
    names = {"wheel": "model-1.0", "parts": "a-1.0"}
    assert record["file"] == names.get(form, "model")
    assert found.name.startswith(f"{record['file']}-")
    assert [p.name for p in (tmp_path / "models").iterdir() if p.suffix != ".lock"] == [found.name]


def test_other_content_is_converted_to_another_folder(tmp_path, wheels):
    other = wheels | {"model": Wheel("model", "1.0", "0" * 64)}
    folders = {
        converted_folder(ENTRY, wheels, tmp_path),
        converted_folder(ENTRY, other, tmp_path),
        converted_folder(ENTRY | {"member": "other.gguf"}, wheels, tmp_path),
        converted_folder(PARTS, wheels, tmp_path),
        converted_folder(PARTS | {"parts": PARTS["parts"][::-1]}, wheels, tmp_path),
        *(converted_folder(ENTRY | {"requantise": r}, wheels, tmp_path) for r in ("Q4_0", "Q8_0")),
    }
    assert len(folders) == 7


def test_a_file_that_was_replaced_is_converted_again(tmp_path, made):
    path = tmp_path / "model.gguf"
    model = {"gguf": str(path)}
    assert converted_folder(model, {}, tmp_path) is None
    path.write_bytes(b"weights")
    first = located(model, {}, tmp_path)
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(1, 1))
    assert located(model, {}, tmp_path) != first
    assert made == [b"weights", b"WEIGHTS"]


def test_a_file_that_is_missing_or_not_the_pinned_one_is_refused(tmp_path, made):
    path = tmp_path / "model.gguf"
    model = {"gguf": str(path), "sha256": WHOLE}
    with pytest.raises(InputError, match=r"^models\.tiny: .*model\.gguf: no such file; correct"):
        located(model, {}, tmp_path)
    path.write_bytes(b"others")
    with pytest.raises(InputError, match=rf"^models\.tiny\.gguf: .* `sha256` pins {WHOLE}; fetch"):
        located(model, {}, tmp_path)
    assert made == []


def test_parts_in_another_order_are_refused_and_nothing_is_left(tmp_path, wheels, made):
    model = PARTS | {"parts": PARTS["parts"][::-1]}
    with pytest.raises(InputError, match=r"^models\.tiny\.parts: the 2 parts make a file"):
        located(model, wheels, tmp_path)
    assert made == []
    assert [p for p in (tmp_path / "models").iterdir() if p.suffix != ".lock"] == []


def test_a_conversion_that_fails_leaves_nothing_behind(tmp_path, wheels, monkeypatch):
    def convert(path: Path, folder: Path, *, name: str, requantise: str | None) -> dict:
        folder.mkdir()
        raise RuntimeError

    monkeypatch.setattr(gguf, "convert_gguf", convert)
    with pytest.raises(RuntimeError):
        located(ENTRY, wheels, tmp_path)
    assert [p for p in (tmp_path / "models").iterdir() if p.suffix != ".lock"] == []


def test_what_a_killed_job_left_is_cleared(tmp_path, wheels, made):
    folder = converted_folder(ENTRY, wheels, tmp_path)
    left = folder.with_name(f".{folder.name}.tmp") / "converted"
    left.mkdir(parents=True)
    (left / "half").write_text("of it")
    assert not (located(ENTRY, wheels, tmp_path) / "half").exists()
    assert not left.parent.exists()


def test_jobs_that_start_together_convert_once(tmp_path, wheels, made, monkeypatch):
    convert = gguf.convert_gguf

    def slow(path: Path, folder: Path, *, name: str, requantise: str | None) -> dict:
        time.sleep(0.3)
        return convert(path, folder, name=name, requantise=requantise)

    monkeypatch.setattr(gguf, "convert_gguf", slow)
    jobs = [threading.Thread(target=located, args=(ENTRY, wheels, tmp_path)) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert made == [b"weights"]


def test_a_real_file_in_parts_becomes_a_model(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model("llama"))
    content = path.read_bytes()
    cuts = [content[:3000], content[3000:9000], content[9000:]]
    wheels = {f"p{n}": kept_wheel(tmp_path, f"p{n}", {f"{n}": cut}) for n, cut in enumerate(cuts)}
    parts = [{"wheel": f"p{n}", "member": f"{n}"} for n in range(3)]
    model = {"parts": parts, "sha256": file_sha256(path)}
    found = located(model, wheels, tmp_path)
    assert AutoModelForCausalLM.from_pretrained(found).config.num_hidden_layers == 2
    assert weights_record(str(found))["quantisation"] == {"F32": 20}


def test_a_model_and_the_same_rounded_once_more_lie_side_by_side(tmp_path):
    written = tiny_model("llama")
    path = write_gguf(tmp_path / "tiny.gguf", written, quantised={"blk.0.ffn_up.weight": Q8_0})
    plain, again = ({"gguf": str(path)} | extra for extra in ({}, {"requantise": "Q4_0"}))
    folders = [located(model, {}, tmp_path) for model in (plain, again)]
    assert folders == [converted_folder(model, {}, tmp_path) for model in (plain, again)]
    assert folders[1].name.startswith("tiny-Q4_0-")
    records = [weights_record(str(folder)) for folder in folders]
    assert records[1] == records[0] | {"requantised": {"Q4_0": 1}}
    assert "requantised" not in records[0]


def test_weights_can_be_rounded_to_what_the_package_writes_and_reads():
    formats = block_formats()
    assert {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"} <= set(formats)
    assert not {"F32", "F16", "BF16", "Q4_K", "Q6_K"} & set(formats)
