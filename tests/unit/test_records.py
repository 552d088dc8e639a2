"""What Snakemake has noted of files and DVC has recorded of them."""

import base64
import hashlib
import json
import sys
from pathlib import Path

import yaml

from checkouts import ROOT

sys.path.insert(0, str(ROOT / "workflow/scripts"))

from common.recorded_files import recorded_md5
from common.records import (
    FOLDER,
    OWN_NOTES,
    Record,
    forget_failed,
    note,
    noted_sha256,
    read_records,
)


def record(ended: float, **inputs: str) -> Record:
    return Record(inputs, {}, ended - 1, ended)


def test_records_are_read_by_the_path_that_they_are_about(tmp_path):
    folder = tmp_path / FOLDER
    content = {
        "starttime": 1.0,
        "endtime": 2.0,
        "input_checksums": {"results/x/a.json": "sha256:ab"},
        "params": ["'zero'", "[1, 2]", "{'seed': 0, 'models.{model}.title': 'Tiny'}"],
    }
    for path in ("results/x/heads.parquet", "results/y/heads.parquet"):
        name = base64.urlsafe_b64encode(path.encode()).decode()
        # Snakemake splits a long name into folders.
        file = folder / f"@{name[:10]}" / name[10:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    (folder / base64.urlsafe_b64encode(b"results/x/cut.json").decode()).write_text('{"sta')
    (folder / "no-base64!").write_text("{}")
    settings = {"seed": 0, "models.{model}.title": "Tiny"}
    expected = Record({"results/x/a.json": "ab"}, settings, 1.0, 2.0)
    assert read_records(tmp_path, ("results/x/",)) == {"results/x/heads.parquet": expected}


def test_a_file_is_what_its_latest_reader_found_unless_it_was_made_again_since(tmp_path):
    records = {
        "prompts": record(1),
        "clean": record(3, prompts="old"),
        "sweep": record(5, prompts="new", clean="c"),
        "heads": record(7, sweep="s", text="not a result of ours"),
    }
    assert noted_sha256(tmp_path, records) == {"prompts": "new", "clean": "c", "sweep": "s"}
    records["sweep"] = record(9, clean="c")
    assert noted_sha256(tmp_path, records) == {"prompts": "old", "clean": "c"}


def test_what_a_failed_job_was_noted_for_is_forgotten(tmp_path):
    """Of this run alone: what a pull leaves out has records and no files too."""
    began = {"x/failed": 5.0, "x/made": 5.0, "x/pulled": 1.0, "y/of another study": 5.0}
    for path, started in began.items():
        file = tmp_path / FOLDER / base64.urlsafe_b64encode(path.encode()).decode()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"starttime": started, "endtime": 6.0}))
    (tmp_path / "x").mkdir()
    (tmp_path / "x/made").touch()
    forget_failed(tmp_path, ("x/",), since=4.0)
    assert set(read_records(tmp_path, ("",))) == set(began) - {"x/failed"}


def test_our_own_notes_hold_until_a_file_is_made_again(tmp_path):
    """Also for a file that nothing reads, or that came out as it was and so was not read again."""
    for name in ("heads", "shard-0of1.json"):
        (tmp_path / "x").mkdir(exist_ok=True)
        (tmp_path / "x" / name).write_text(name)
    records = {"x/heads": record(1), "x/shard-0of1.json": record(1), "x/gone": record(1)}
    note(tmp_path, records)
    expected = {"x/heads": hashlib.sha256(b"heads").hexdigest()}
    assert noted_sha256(tmp_path, records) == expected
    (tmp_path / "x/heads").write_text("damaged")
    note(tmp_path, records)
    assert noted_sha256(tmp_path, records) == expected
    assert noted_sha256(tmp_path, records | {"x/heads": record(2)}) == {}
    (tmp_path / OWN_NOTES).write_text("[")
    assert noted_sha256(tmp_path, records) == {}


def test_recorded_folders_are_listed_from_the_cache_or_the_store(tmp_path):
    outs = [
        {"path": "results/x/claims.md", "md5": "aa11"},
        {"path": "results/x/m/sweeps", "md5": "bb22.dir"},
        {"path": "results/x/m/drawn", "md5": "cc33.dir"},
        {"path": "results/other/claims.md", "md5": "dd44"},
    ]
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": {"all": {"outs": outs}}}))
    listing = tmp_path / "artifacts/files/md5/bb/22.dir"
    listing.parent.mkdir(parents=True)
    listing.write_text(json.dumps([{"md5": "ee55", "relpath": "zero/shard-0of1.json"}]))
    assert recorded_md5(tmp_path, ("results/x/", "figures/x/")) == {
        "results/x/claims.md": "aa11",
        "results/x/m/sweeps/zero/shard-0of1.json": "ee55",
    }
    assert recorded_md5(Path("nowhere"), ("results/x/",)) == {}
