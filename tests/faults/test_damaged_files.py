"""Files that are damaged or lost: named in one line, and made again by the same command."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from checkouts import Checkout, new_checkout, run_in
from damage import flip
from faulty_runs import EARLY, Study, study_in, unchanged
from gguf_files import tiny_model, write_gguf
from selfrepair.files.storage import read_json, write_json

MODEL = "results/tiny/gpt2"


def test_whatever_is_missing_is_made_again_and_no_shard(whole: Study, same):
    """One of each kind at once; what comes out as it was makes nothing else stale."""
    before = whole.started()
    for name in (
        *("results/tiny/documents.parquet", "results/tiny/claims.md"),
        *("figures/tiny/E1-self-repair-by-depth.svg", f"{MODEL}/drawn/zero.parquet"),
        *(f"{MODEL}/{name}" for name in ("prompts.parquet", "parts.json")),
        *(f"{MODEL}/{name}" for name in ("sweeps/zero.json", "heads.parquet", "chosen-heads.json")),
    ):
        (whole.folder / name).unlink()
    assert whole.run() == 0, whole.told()[-5:]
    same(whole)
    assert whole.started() == before


@pytest.mark.faults
@pytest.mark.parametrize(
    ("damaged", "wanted"),
    [
        ("clean/shard-1of2.safetensors", "clean.safetensors"),
        ("sweeps/resample/shard-1of2.safetensors", "heads.parquet"),
        ("sweeps/resample/shard-0of2.json", "heads.parquet"),
        ("experiments/neurons/shard-0of1.safetensors", "neuron_curve.parquet"),
        ("clean.safetensors", None),
        ("prompts.parquet", None),
        ("drawn/zero.parquet", None),
        ("sweeps/zero.json", None),
        ("heads.parquet", None),
    ],
)
def test_a_damaged_file_is_named_set_aside_and_made_again(whole: Study, same, damaged, wanted):
    """wanted: what has to be made of the damaged file, without which nothing reads it."""
    before, path = whole.started(), whole.folder / MODEL / damaged
    if path.suffix == ".json":
        path.write_text(path.read_text()[:-30])
    else:
        flip(path)
    if wanted:
        (whole.folder / MODEL / wanted).unlink()
    assert whole.run() == 0, whole.told()[-5:]
    warnings = [line for line in whole.told() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"warning: {MODEL}/{damaged}: damaged")
    assert (whole.folder / ".snakemake/damaged" / MODEL / damaged).is_file()
    same(whole)
    again = {shard for shard, started in whole.started().items() if started != before[shard]}
    assert {Path(shard).stem for shard in again} <= {Path(damaged).stem}


@pytest.mark.faults
def test_lost_records_of_snakemake_lose_no_result(whole: Study, same):
    shutil.rmtree(whole.folder / ".snakemake")
    assert whole.run() == 0, whole.told()[-5:]
    assert "Nothing to be done" in "\n".join(whole.told())
    same(whole)


@pytest.mark.faults
@pytest.mark.parametrize("writing", ["shards", "tables", "figures"])
def test_a_full_disk_ends_the_run_and_nothing_half_written_stays(
    finished: Checkout, small_disk: Path, same, writing: str
):
    def kept(rule: str) -> bool:
        if writing == "shards":
            return rule in EARLY
        # Of the tables those that all claims and most figures follow.
        late = () if writing == "figures" else ("decompose", "summarise", "judge", "compare")
        return not rule.startswith(("draw_E", "draw_published", *late))

    study = study_in(small_disk / "study", finished, keep=kept)
    fill = small_disk / "fill"
    with fill.open("wb") as stream:
        left = shutil.disk_usage(small_disk).free - 96 * 1024
        stream.write(bytes(left))
    before = study.started()
    assert study.run() != 0
    assert "No space left" in "\n".join(study.told())
    assert study.unfinished() == []
    fill.unlink()
    assert study.run() == 0, study.told()[-5:]
    same(study)
    assert unchanged(before, study)


@pytest.fixture
def fetched(tmp_path: Path) -> tuple[Path, Callable[[], list[str]], Path]:
    """A checkout whose model has been converted; fetches again and gives the lines told; the folder of its weights."""
    checkout = new_checkout(tmp_path / "checkout")
    (tmp_path / "text.txt").write_text("\n\n\n".join(["Words of a text."] * 9))
    source = {"kind": "file", "path": str(tmp_path / "text.txt"), "licence": "made up"}
    file = write_gguf(tmp_path / "tiny.gguf", tiny_model("llama"))
    config = {
        "study": "tiny",
        "models": {"tiny": {"gguf": str(file)}},
        "text": {"prompts": 4, "tokens_per_prompt": 16, "sources": {"words": source}},
        "ablations": {"resample": {"prompts": 4}},
        "experiments": {"prompts_per_shard": 4},
    }
    (checkout / "config/tiny.yaml").write_text(yaml.safe_dump(config))

    def fetch() -> list[str]:
        command = [sys.executable, "workflow/scripts/fetch.py", "config/tiny.yaml"]
        done = run_in(checkout, *command)
        assert done.returncode == 0, done.stderr
        return done.stderr.splitlines()

    assert fetch()[0] == "tiny: fetching its weights and converting them"
    (folder,) = (path for path in (checkout / "resources/models").iterdir() if path.is_dir())
    return checkout, fetch, folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_damaged_converted_weights_are_named_set_aside_and_made_again(fetched):
    """Though their time is as before; `make verify` names them too."""
    checkout, fetch, folder = fetched
    before = content(folder)
    assert fetch() == []
    flip(folder / "model.safetensors")
    damaged = content(folder)
    done = run_in(checkout, sys.executable, "workflow/scripts/verify.py", "config/tiny.yaml")
    place = folder.relative_to(checkout)
    what = f"{place}/model.safetensors: damaged: its content has changed since it was made"
    assert [line for line in done.stdout.splitlines() if line.startswith(str(place))] == [
        f"{what}; `make study CONFIG=config/tiny.yaml` makes it again"
    ]
    aside = f"resources/damaged/{folder.name}"
    first, second, _ = fetch()
    assert first == f"warning: {what}; set aside in {aside}/, to be made again"
    assert second == "tiny: fetching its weights and converting them"
    assert content(folder) == before
    assert content(checkout / aside) == damaged
    assert fetch() == []


@pytest.mark.faults
def test_converted_weights_of_before_there_were_hashes_are_noted_when_they_are_first_seen(fetched):
    checkout, fetch, folder = fetched
    notes = checkout / "resources/vetted.json"
    known = read_json(notes)
    write_json(notes, {p: {f: seen[:2] for f, seen in of.items()} for p, of in known.items()})
    assert fetch() == []
    assert read_json(notes)[str(folder)] == known[str(folder)]
    flip(folder / "tokenizer.json")
    assert fetch()[0].startswith(f"warning: {folder.relative_to(checkout)}/tokenizer.json: damaged")


@pytest.mark.faults
def test_a_damaged_directory_of_the_users_own_is_refused_by_name(fetched):
    """What is edited, and so has another time, is vetted as it is."""
    checkout, fetch, folder = fetched
    own = folder.replace(checkout / "own")
    config = yaml.safe_load((checkout / "config/tiny.yaml").read_text())
    config["models"] = {"tiny": {"name": "./own"}}
    (checkout / "config/tiny.yaml").write_text(yaml.safe_dump(config))
    assert fetch() == []
    settings = own / "config.json"
    settings.write_text(settings.read_text() + "\n")
    assert fetch() == []
    flip(own / "model.safetensors")
    command = [sys.executable, "workflow/scripts/fetch.py", "config/tiny.yaml"]
    done = run_in(checkout, *command)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "models.tiny: the content of own/model.safetensors has changed since" in line
    assert "copy it again (or `touch` it if it is right)" in line
