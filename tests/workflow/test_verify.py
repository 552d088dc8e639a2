"""`make verify` finds what cannot be trusted, in a line each with the remedy, and changes nothing."""

import shutil
import subprocess
import sys

import pytest
import yaml

from checkouts import Checkout, run_in
from damage import flip

MODEL = "results/tiny/gpt2"
REMEDY = "`make study CONFIG=config/tiny.yaml` makes it again"


def verify(checkout: Checkout, **changes) -> subprocess.CompletedProcess[str]:
    config = checkout.folder / "config/tiny.yaml"
    config.write_text(yaml.safe_dump(checkout.config | changes))
    return run_in(checkout.folder, sys.executable, "workflow/scripts/verify.py", "config/tiny.yaml")


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 1, done.stdout + done.stderr
    found = done.stdout.splitlines()
    assert done.stderr == f"error: config/tiny.yaml: {len(found)} files cannot be trusted\n"
    return found


def test_an_undisturbed_study_is_whole(finished):
    done = verify(finished)
    assert (done.returncode, done.stderr) == (0, "")
    assert "all there, whole, and made under this config" in done.stdout


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("clean.safetensors", "damaged: differs from the checksum in clean.json"),
        ("sweeps/zero/shard-0of1.safetensors", "damaged: differs from the checksum in shard"),
        ("prompts.parquet", "damaged: its content has changed since it was made"),
        ("heads.parquet", "damaged: its content has changed since it was made"),
        ("drawn/zero.parquet", "damaged: its content has changed since it was made"),
    ],
)
def test_one_damaged_byte_is_found(copy_of_finished, name, what):
    flip(copy_of_finished.folder / MODEL / name)
    (line,) = lines(verify(copy_of_finished))
    assert line.startswith(f"{MODEL}/{name}: {what}")
    assert line.endswith(f"; {REMEDY}")


def test_deleted_files_are_missed(copy_of_finished):
    gone = [
        f"{MODEL}/heads.parquet",
        f"{MODEL}/parts.json",
        "figures/tiny/E1-self-repair-by-depth.svg",
    ]
    for name in gone:
        (copy_of_finished.folder / name).unlink()
    found = lines(verify(copy_of_finished))
    assert found == [f"{name}: missing; {REMEDY}" for name in sorted(gone)]


def test_swapped_sidecars_are_told_from_damaged_shards(copy_of_finished):
    folder = copy_of_finished.folder / MODEL / "sweeps/resample"
    first, second = (folder / f"shard-{number}of2.json" for number in (0, 1))
    shutil.move(first, folder / "kept")
    shutil.move(second, first)
    shutil.move(folder / "kept", second)
    found = lines(verify(copy_of_finished))
    assert len(found) == 2
    assert found[0].startswith(
        f"{MODEL}/sweeps/resample/shard-0of2.json: does not vouch for shard-0"
    )


def test_files_of_another_config_are_named_with_the_key(copy_of_finished):
    found = lines(verify(copy_of_finished, statistics={"resamples": 1100}))
    assert (
        f"{MODEL}/heads.parquet: made with statistics.resamples: 1000, now 1100; {REMEDY}" in found
    )
    assert not [line for line in found if "shard-" in line]


def test_tensors_tell_of_their_config_where_snakemake_has_no_records(copy_of_finished):
    shutil.rmtree(copy_of_finished.folder / ".snakemake")
    found = lines(verify(copy_of_finished, dtype="float64"))
    assert found
    assert all("made with dtype: float32, now float64" in line for line in found)
    assert f"{MODEL}/sweeps/zero/shard-0of1.safetensors" in {line.split(":")[0] for line in found}
