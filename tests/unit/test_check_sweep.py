"""The script that compares the first shard with the plain model: what it writes, and how it stops a study."""

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import torch

from drawn_tokens import some_drawn
from selfrepair.files.agreement import agreement_note
from selfrepair.files.archives import pack_shards
from selfrepair.files.shards import gather
from selfrepair.files.storage import read_tensors, write_json, write_tensors
from selfrepair.measure.token_sweep import sweep_tokens
from selfrepair.model.parts import write_parts
from selfrepair.testing import agreement
from stand_in_gpu import load_on_gpu, stand_in_gpu
from tiny_models import random_tokens

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parents[2] / "workflow/scripts"
TOKENS, PARTNERS = random_tokens(7, 12), [3, 4, 5, 6, 0, 1, 2]
MADE = {"dtype": "float32", "tf32": False, "ablation": "resample", "tokens": "sampled"}
MADE |= {"prompts": [0, 7], "wall_seconds": 1.0}


def save_shard(folder, model, *, device="a GPU"):
    """The first shard of a sweep, and what a job that runs the model reads; the path of its sidecar."""
    drawn = some_drawn(model, TOKENS, share=0.5)
    arrays = sweep_tokens(model, TOKENS, drawn, donors=TOKENS[PARTNERS]).arrays()
    shard = folder / "sweeps/resample/shard-0of1.safetensors"
    write_tensors(shard, arrays, {**MADE, "device": device})
    table = {"prompt": range(7), "tokens": TOKENS.tolist(), "donor": PARTNERS}
    none = pl.Series("bos_token", [None] * 7, dtype=pl.Int64)
    pl.DataFrame(table).with_columns(none).write_parquet(folder / "prompts.parquet")
    write_parts(model.parts, folder / "parts.json")
    return shard.with_suffix(".json")


def check(folder, location, *, sidecars, heads=3):
    """Run the script as Snakemake does; what it wrote."""
    sys.path.insert(0, str(SCRIPTS))
    settings = {"sweep.checked_heads": heads, "seed": 0, "models.{model}.name": str(location)}
    snakemake = SimpleNamespace(
        input=SimpleNamespace(
            shard=[str(path) for path in sidecars],
            prompts=str(folder / "prompts.parquet"),
            parts=str(folder / "parts.json"),
        ),
        output=[str(folder / "agreement.json")],
        log=[str(folder / "check_sweep.log")],
        wildcards=SimpleNamespace(model="toy"),
        params=SimpleNamespace(settings=settings),
        config={
            "device": "cuda",
            "cache": "cache",
            "memory": {"prompts_at_once": 2, "rows_at_once": None},
            "models": {"toy": {}},
        },
        threads=1,
    )
    snakemake.wildcards.get = lambda name, default=None: getattr(snakemake.wildcards, name, default)
    runpy.run_path(str(SCRIPTS / "check_sweep.py"), init_globals={"snakemake": snakemake})
    return json.loads((folder / "agreement.json").read_text())


def refusal(folder, location, **asked):
    """The one line that a study is stopped with; nothing is written then."""
    with pytest.raises(SystemExit) as caught:
        check(folder, location, **asked)
    assert caught.value.code == 1
    assert not (folder / "agreement.json").exists()
    (line,) = (folder / "check_sweep.log").read_text().splitlines()
    return line


def test_a_right_shard_is_said_to_be(tiny, tiny_folder, tmp_path):
    found = check(tmp_path, tiny_folder("gpt2"), sidecars=[save_shard(tmp_path, tiny("gpt2"))])
    assert found["checked"] is True
    assert found["instances"] == 9
    assert len(found["heads"]) == 3
    assert max(found["largest_difference"].values()) < 1e-4
    assert found["tolerance"] == 1e-3
    assert found["shard"]["device"] == "a GPU"
    assert found["versions"]["torch"]
    note = agreement_note(found)
    assert note.startswith("Checked against the plain model on the CPU: 9 instances of 3 heads")
    assert note.endswith(f"{max(found['largest_difference'].values()):.0e} logits.")


def test_a_packed_shard_is_unpacked(tiny, tiny_folder, tmp_path):
    beside = save_shard(tmp_path, tiny("gpt2"))
    shard, index = beside.with_suffix(".safetensors"), tmp_path / "sweeps/resample.json"
    write_json(index, gather([shard], relative_to=index.parent))
    pack_shards(index)
    shard.unlink()
    assert check(tmp_path, tiny_folder("gpt2"), sidecars=[beside])["checked"] is True


def test_a_wrong_number_with_a_right_hash_stops_the_study(tiny, tiny_folder, tmp_path):
    beside = save_shard(tmp_path, tiny("gpt2"))
    shard = beside.with_suffix(".safetensors")
    arrays, record = read_tensors(shard)
    arrays["from_mlps"] += 2e-3  # twice what may be
    write_tensors(shard, arrays, {k: v for k, v in record.items() if k != "sha256"})
    line = refusal(tmp_path, tiny_folder("gpt2"), sidecars=[beside])
    assert line.startswith(f"error: {shard} (model toy, float32 on a GPU): head 0.")
    assert ": from_mlps is " in line
    assert f"delete {tmp_path} and measure on another device" in line
    assert "sweep.checked_heads: 0" in line


def test_a_device_that_disagrees_with_itself_in_nothing_stops_the_study(tiny_folder, tmp_path):
    """A GPU with one wrong number in its memory: all sums add up, and all are wrong."""
    model = load_on_gpu(tiny_folder("gpt2"))
    with stand_in_gpu():
        beside = save_shard(tmp_path, model)
    assert check(tmp_path, tiny_folder("gpt2"), sidecars=[beside])["checked"] is True
    (tmp_path / "agreement.json").unlink()
    weights = dict(model.network.named_parameters())["transformer.h.1.mlp.c_fc.weight"]
    weights.data.held[3, 5] += 2.0
    with stand_in_gpu():
        beside = save_shard(tmp_path, model)
    line = refusal(tmp_path, tiny_folder("gpt2"), sidecars=[beside])
    assert "and measure on another device" in line


def test_zero_heads_leave_the_check_out(tmp_path):
    """Nothing is read: neither shard nor model is there."""
    found = check(tmp_path, "nowhere", sidecars=[tmp_path / "shard-0of1.json"], heads=0)
    assert found["checked"] is False
    assert agreement_note(found) == (
        "Not checked against the plain model: sweep.checked_heads is 0."
    )


def test_what_has_no_reference_does_not_stop_the_study(tiny, tiny_folder, tmp_path, monkeypatch):
    assert "a mean" in check(tmp_path, "nowhere", sidecars=[])["reason"]
    beside = save_shard(tmp_path, tiny("gpt2"))

    def unsupported(*_, **__):
        raise NotImplementedError("hooks are not supported")

    monkeypatch.setattr(agreement.HookedModel, "run", unsupported)
    found = check(tmp_path, tiny_folder("gpt2"), sidecars=[beside])
    assert found["checked"] is False
    assert found["reason"] == "hooks are not supported"
    log = (tmp_path / "check_sweep.log").read_text()
    assert log == "warning: toy: not checked against the plain model: hooks are not supported\n"


@pytest.fixture(autouse=True)
def threads():
    """The script sets them for its process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
