"""A small study in a checkout of its own, run once; tests that change something take a copy."""

import hashlib
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

from checkouts import new_checkout
from tiny_models import random_words, save_tiny_model


@dataclass
class Checkout:
    """A working copy of the workflow and the config of its study."""

    folder: Path
    config: dict

    def snakemake(self, *arguments: str, **changes: object) -> subprocess.CompletedProcess:
        """Run Snakemake on the study's config with some top-level keys changed."""
        path = self.folder / "config" / "tiny.yaml"
        path.write_text(yaml.safe_dump(self.config | changes))
        command = [sys.executable, "-m", "snakemake", *arguments]
        command += ["--cores", "2", "--configfile", str(path)]
        environment = os.environ | {"PYTHONPATH": str(self.folder / "workflow")}
        return subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def planned(self, *arguments: str, **changes: object) -> set[str]:
        """Rules that a dry run would run."""
        done = self.snakemake("--dry-run", "--quiet", "rules", *arguments, **changes)
        assert done.returncode == 0, done.stderr
        rows = [line.split() for line in (done.stdout + done.stderr).splitlines()]
        return {row[0] for row in rows if len(row) == 2 and row[1].isdigit()} - {"total", "all"}


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("material")
    model = save_tiny_model("gpt2", folder / "model")
    text = folder / "words.txt"
    text.write_text("\n\n\n".join(random_words(60, seed=seed) for seed in range(9)))
    released, hashes = folder / "released", {}
    released.mkdir()
    for number, quantity in enumerate(("direct_effects", "ablated_direct_effects", "logit_diff")):
        table = torch.randn(3, 3, generator=torch.Generator().manual_seed(number))
        path = released / f"gpt2-tiny_condensed_{quantity}"
        path.write_bytes(pickle.dumps(table, protocol=4))
        hashes[quantity] = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "study": "tiny",
        "models": {"gpt2": {"title": "Tiny GPT-2", "name": str(model)}},
        "text": {
            "prompts": 6,
            "tokens_per_prompt": 16,
            "sources": {"words": {"kind": "file", "path": str(text), "licence": "made up"}},
        },
        "ablations": {"resample": {"prompts": 6}, "zero": {"prompts": 4}},
        "sweep": {"prompts_per_shard": 4},
        "experiments": {"prompts_per_shard": 4, "heads": 2, "mlps": [1, -1]},
        "statistics": {"resamples": 1000},
        "published": {
            "location": str(released),
            "tables": {"gpt2": {"name": "gpt2-tiny", "sha256": hashes}},
        },
    }


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_config: dict) -> Checkout:
    """The study, run to its end; do not change it."""
    checkout = Checkout(new_checkout(tmp_path_factory.mktemp("study") / "repo"), tiny_config)
    done = checkout.snakemake()
    assert done.returncode == 0, done.stdout + done.stderr
    checkout.told = done.stderr  # type: ignore[attr-defined]
    return checkout


@pytest.fixture
def copy_of_finished(finished: Checkout, tmp_path: Path) -> Checkout:
    folder = tmp_path / "repo"
    shutil.copytree(finished.folder, folder, copy_function=shutil.copy2)
    return Checkout(folder, finished.config)


@pytest.fixture
def fresh(tmp_path: Path, tiny_config: dict) -> Callable[[], Checkout]:
    return lambda: Checkout(new_checkout(tmp_path / "fresh"), tiny_config)
