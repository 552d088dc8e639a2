"""Provenance says what a result was made with, and `files` loads no torch before it is needed."""

import subprocess
import sys
import time

import torch

import selfrepair
from selfrepair.files.provenance import Stopwatch, environment


def test_the_environment_names_versions_commit_and_hardware():
    made = environment()
    assert made["versions"]["torch"] == torch.__version__
    assert made["versions"]["selfrepair"] == selfrepair.__version__
    assert made["commit"] is None or len(made["commit"].rstrip("+")) == 40
    assert made["device"]
    assert made["threads"] == torch.get_num_threads()
    assert 50 < made["peak_memory_mb"] < 1e6


def test_outside_a_repository_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment()["commit"] is None


def test_a_stopwatch_runs_in_seconds():
    watch = Stopwatch()
    time.sleep(0.05)
    assert 0.04 < watch.seconds() < 5


def test_importing_files_and_studies_loads_no_torch():
    """Claims, tables, figures and dry runs use them."""
    modules = [
        *(f"files.{name}" for name in ("hub", "provenance", "shards", "storage", "wheels")),
        *(f"study.{name}" for name in ("config", "materials", "planning", "schema")),
    ]
    imports = ", ".join(f"selfrepair.{name}" for name in modules)
    program = (
        f"import sys, {imports}; print(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
