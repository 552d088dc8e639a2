"""What is missing is fetched if the store has it as it was."""

import base64
import hashlib
import json
import sys
from pathlib import Path

import pytest
import yaml

from checkouts import ROOT

sys.path.insert(0, str(ROOT / "workflow/scripts"))

from common.records import FOLDER, note, read_records
from common.repair import ASIDE, Repair

TABLE = "results/x/m/heads.parquet"
FOLDERS = ("results/x/", "figures/x/")


@pytest.fixture
def repair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repair:
    """Of a checkout with one table, made, noted, and recorded by DVC."""
    monkeypatch.chdir(tmp_path)
    content = b"a table"
    Path(TABLE).parent.mkdir(parents=True)
    Path(TABLE).write_bytes(content)
    FOLDER.mkdir(parents=True)
    record = FOLDER / base64.urlsafe_b64encode(TABLE.encode()).decode()
    record.write_text(json.dumps({"starttime": 1.0, "endtime": 2.0}))
    note(tmp_path, read_records(tmp_path, FOLDERS))
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    outs = [{"path": TABLE, "md5": md5}]
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"tables": {"outs": outs}}}))
    kept = Path("artifacts/files/md5", md5[:2], md5[2:])
    kept.parent.mkdir(parents=True)
    kept.write_bytes(content)
    return Repair(tmp_path, "x", Path("x.yaml"))


def test_a_damaged_recorded_file_is_set_aside_and_fetched(repair, capsys):
    Path(TABLE).write_bytes(b"a tab1e")
    repair.set_aside_edited()
    assert not Path(TABLE).exists()
    assert (ASIDE / TABLE).read_bytes() == b"a tab1e"
    assert capsys.readouterr().err.startswith(f"warning: {TABLE}: damaged: its content has changed")
    assert repair.fetched([TABLE]) == {TABLE}
    assert Path(TABLE).read_bytes() == b"a table"


def test_what_the_store_has_otherwise_is_left_to_snakemake(repair):
    Path(TABLE).unlink()
    (kept,) = (path for path in Path("artifacts").rglob("*") if path.is_file())
    kept.write_bytes(b"a tab1e")
    assert repair.fetched([TABLE, "results/x/m/other.parquet"]) == set()
    assert not Path(TABLE).exists()
