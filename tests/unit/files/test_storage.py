"""Files are whole or absent, and refused when their content is not what was written."""

from functools import partial

import pytest
import torch

from damage import flip
from selfrepair.errors import InputError
from selfrepair.files.storage import (
    atomic,
    read_tensors,
    rounded,
    sidecar,
    write_bytes,
    write_json,
    write_tensors,
)


def test_an_error_leaves_nothing_behind_and_the_old_file_alone(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half():
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "deep" / "file.bin"
    for content in (b"first", b"\x00\xff", b""):
        write_bytes(path, content)
        assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]


def test_json_holds_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_tensors_come_back_with_their_provenance(tmp_path):
    path = tmp_path / "deep" / "x.safetensors"
    write_tensors(path, {"a": torch.arange(6.0).view(2, 3).T}, {"seed": 4})
    tensors, provenance = read_tensors(path)
    assert torch.equal(tensors["a"], torch.arange(6.0).view(2, 3).T)
    assert provenance["seed"] == 4


def truncate(path):
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize("damage", [partial(flip, at=-1), truncate], ids=["flip", "truncate"])
def test_damaged_tensors_are_refused(tmp_path, damage):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(4)}, {})
    damage(path)
    with pytest.raises(InputError, match=r"x\.safetensors: content differs") as error:
        read_tensors(path)
    assert "\n" not in str(error.value)


def test_missing_or_broken_sidecar_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(4)}, {})
    sidecar(path).write_text("{")
    with pytest.raises(InputError, match=r"x\.json: cannot be read"):
        read_tensors(path)
    sidecar(path).unlink()
    with pytest.raises(InputError, match=r"x\.json: cannot be read"):
        read_tensors(path)


def test_rounding_is_bounded_told_and_leaves_out_what_must_stay_exact():
    values = torch.linspace(-7, 7, 1001)
    tensors = {"a": values, "kept": values, "large": values * 1e5, "hole": values.clone()}
    tensors["hole"][3] = torch.nan
    out, errors = rounded(tensors, "float16", keep=["kept"])
    assert out["a"].dtype == out["hole"].dtype == torch.float16
    assert out["kept"] is tensors["kept"]
    assert out["large"].dtype == torch.float32  # float16 cannot hold it
    assert set(errors) == {"a", "hole"}
    assert errors["a"] == float((out["a"].float() - values).abs().max())
    assert 0 < errors["a"] <= 7 * 2**-11
    assert out["hole"].isnan().sum() == 1
    assert rounded(tensors, "float32", keep=[]) == (tensors, {})
