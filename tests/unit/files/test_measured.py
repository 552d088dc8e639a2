"""NaN, infinity and errors above their bound on disk: refused by what makes tables, whoever wrote them."""

import json
from pathlib import Path

import pytest
import torch

from selfrepair import ExactnessError
from selfrepair.files.archives import pack_shards
from selfrepair.files.measured import ERROR_BOUNDS, check_errors, check_numbers, restore_measured
from selfrepair.files.shards import gather
from selfrepair.files.storage import file_sha256, read_json, sidecar, write_json, write_tensors
from selfrepair.model import decoder

SCRIPTS = Path(__file__).parents[3] / "workflow/scripts"
MADE = {"prompts": [0, 4], "wall_seconds": 1.0, "dtype": "float32", "tf32": False}
MADE |= {"conservation_error": 2e-5, "decomposition_error": 1e-5}


def tensors():
    places = {name: torch.arange(4) + at for at, name in enumerate(("prompt", "position", "layer"))}
    numbers = {"self_repair": torch.rand(4), "map.sums": torch.rand(3, 2, 5)}
    return places | numbers | {"feed_back.new_direct_effect": torch.rand(4, 3, 2)}


@pytest.fixture
def index(tmp_path):
    """A gathered measurement of one shard."""
    return gathered(tmp_path, tensors())


def gathered(folder, arrays, **made):
    shard = folder / "resample/shard-0of1.safetensors"
    write_tensors(shard, arrays, MADE | made)
    index = folder / "resample.json"
    write_json(index, gather([shard], relative_to=folder))
    return index


def shard_of(index):
    return index.with_suffix("") / "shard-0of1.safetensors"


def test_what_is_whole_and_exact_passes_packed_or_not(index):
    restore_measured(index)
    pack_shards(index)
    shard_of(index).unlink()
    restore_measured(index)
    assert file_sha256(shard_of(index)) == read_json(index)["files"][0]["sha256"]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("name", "at", "where"),
    [
        ("self_repair", (2,), r"\[2\] \(prompt 2, position 3, layer 4\)"),
        ("map.sums", (1, 0, 4), r"\[1, 0, 4\]"),
    ],
)
def test_a_number_that_is_none_is_refused_though_its_hash_is_right(
    tmp_path, name, at, where, wrong
):
    arrays = tensors()
    arrays[name][at] = wrong
    index = gathered(tmp_path, arrays)
    with pytest.raises(ExactnessError) as caught:
        restore_measured(index)
    text = str(caught.value)
    assert text.startswith(f"{shard_of(index)}: {name} is {wrong} at ")
    caught.match(where)
    assert text.endswith("delete it and its sidecar, and measure again")
    assert "\n" not in text


def test_not_measured_is_nan_where_it_is_documented_and_never_infinite(tmp_path):
    arrays = tensors()
    arrays["feed_back.new_direct_effect"][:, 2] = float("nan")
    restore_measured(gathered(tmp_path, arrays))
    arrays["feed_back.new_direct_effect"][1, 2, 0] = float("inf")
    index = gathered(tmp_path, arrays)
    with pytest.raises(ExactnessError, match=r"is inf at \[1, 2, 0\] \(prompt 1,"):
        restore_measured(index)


def test_numbers_of_half_the_size_are_looked_at_too(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.tensor([1.0, float("nan")], dtype=torch.float16)}, {})
    with pytest.raises(ExactnessError, match=r"a is nan at \[1\]"):
        check_numbers(path)


@pytest.mark.parametrize(
    ("name", "value", "of"),
    [
        ("decomposition_error", float("nan"), {}),
        ("conservation_error", 2e-3, {}),
        ("map_error", float("inf"), {}),
        ("neuron_error", 0.3, {"tf32": True}),
        ("decomposition_error", 0.3, {"dtype": "float16"}),
        ("rounding_error", float("nan"), {}),
        ("scale_rounding", float("nan"), {}),
    ],
)
def test_an_error_that_is_nan_or_above_its_bound_is_refused(index, name, value, of):
    """As a sidecar edited by hand may say: of the tensors it holds the right hash."""
    path = sidecar(shard_of(index))
    path.write_text(json.dumps(read_json(path) | of | {name: value}))
    with pytest.raises(ExactnessError, match=f"^{path}: {name} is {value:.3g}, not [^\n]*$"):
        restore_measured(index)


@pytest.mark.parametrize(
    "record",
    [
        {"dtype": "float32", "tf32": True, "decomposition_error": 0.2},
        {"dtype": "bfloat16", "tf32": False, "decomposition_error": 0.9, "precision_error": 3.0},
        {"dtype": "float32", "tf32": False, "rounding_error": 0.1},
        {"decomposition_error": 0.9},  # of several number formats
        {"not_measured": "no neurons"},
    ],
)
def test_errors_within_the_bound_of_their_number_format_pass(tmp_path, record):
    check_errors(tmp_path / "x.json", record)


def test_every_script_that_makes_a_table_of_shards_looks_at_them_first():
    reading = ("read_arrays", "read_shards", "read_instances", "summed_shards", "SummedLayers")
    found = {
        path.stem: path.read_text()
        for path in SCRIPTS.glob("*.py")
        if any(name in path.read_text() for name in reading)
    }
    # Pairs are chosen before any table, and the explorer page shows what tables were made of.
    for script in found.keys() - {"choose_pairs", "write_page"}:
        assert "restore_measured(index)" in found[script], script
    assert {"decompose", "map_repair", "tabulate_neurons"} < found.keys()


def test_the_bounds_are_those_of_what_measures():
    assert ERROR_BOUNDS == decoder.ERROR_BOUNDS
