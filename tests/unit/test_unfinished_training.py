"""What a training of constants leaves behind when it is cut off, and who goes on from it."""

from __future__ import annotations

import builtins
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "workflow/scripts"
sys.path.insert(0, str(SCRIPTS))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module, which does not run."""
    import common.adapter

    monkeypatch.setattr(common.adapter, "run", lambda *_: None)
    monkeypatch.setattr(builtins, "snakemake", None, raising=False)
    path = SCRIPTS / "train_constants.py"
    spec = importlib.util.spec_from_file_location("train_constants", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Inputs(SimpleNamespace):
    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


@pytest.fixture
def job(tmp_path: Path) -> SimpleNamespace:
    """A job's inputs and settings."""
    files = {name: tmp_path / name for name in ("prompts", "clean", "heads", "code.py")}
    for name, path in files.items():
        path.write_text(name)
    named = {name: str(files[name]) for name in ("prompts", "clean", "heads")}
    return SimpleNamespace(
        input=Inputs(code=[str(files["code.py"])], **named),
        params=SimpleNamespace(settings={"seed": 0, "experiments.optimal_steps": 30}),
        log=[str(tmp_path / "log")],
    )


STATE = {"step": torch.tensor(20), "shift": torch.ones(2, 3)}


def kept(script: Any, job: SimpleNamespace, folder: Path) -> Any:
    return script.Unfinished(job, folder).load(7)


def test_the_same_job_goes_on_from_what_was_saved(script, job, tmp_path):
    folder = tmp_path / "unfinished"
    assert kept(script, job, folder) is None
    script.Unfinished(job, folder).save(7, STATE)
    found = kept(script, job, folder)
    assert all(torch.equal(found[name], value) for name, value in STATE.items())
    assert script.Unfinished(job, folder).load(6) is None
    script.Unfinished(job, folder).remove()
    assert not folder.exists()


@pytest.mark.parametrize("changed", ["prompts", "clean", "heads", "code.py", "settings"])
def test_another_job_starts_anew(script, job, tmp_path, changed):
    folder = tmp_path / "unfinished"
    script.Unfinished(job, folder).save(7, STATE)
    if changed == "settings":
        job.params.settings["seed"] = 1
    else:
        (tmp_path / changed).write_text("another")
    assert kept(script, job, folder) is None


def test_what_is_damaged_is_told_and_trained_anew(script, job, tmp_path, capsys):
    folder = tmp_path / "unfinished"
    script.Unfinished(job, folder).save(7, STATE)
    path = folder / "layer-7.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert kept(script, job, folder) is None
    assert "layer-7.safetensors: content differs" in capsys.readouterr().err
