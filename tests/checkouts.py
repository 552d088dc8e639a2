"""Copies of the workflow that tests can run and change."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml
from filelock import FileLock

ROOT = Path(__file__).parents[1]
# Rows of Snakemake's table of jobs that run nothing.
TARGETS = {"total", "all", "documents", "claims"}
PARTS = ("Snakefile", "workflow", "config", "profiles")


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder that the first of the test processes makes and the others wait for."""
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            unfinished = folder.with_name(f"{folder.name}-unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            make(unfinished)
            unfinished.rename(folder)
    return folder


def new_checkout(folder: Path) -> Path:
    folder.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", "node_modules")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=ignored)
        else:
            shutil.copy(source, folder / part)
    return folder


def run_in(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a checkout, with this Python's programs and the checkout's own library."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PYTHONPATH": str(folder / "workflow"), "PATH": path}
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | own | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )


def made_in(folder: Path) -> list[Path]:
    """All that there is under the results and figures of a checkout."""
    return [path for top in ("results", "figures") for path in (folder / top).rglob("*")]


def planned_rules(dry_run: subprocess.CompletedProcess[str]) -> set[str]:
    """Rules that a `snakemake --dry-run --quiet rules` would run."""
    assert dry_run.returncode == 0, dry_run.stderr
    rows = [line.split() for line in (dry_run.stdout + dry_run.stderr).splitlines()]
    return {row[0] for row in rows if len(row) == 2 and row[1].isdigit()} - TARGETS


@dataclass
class Checkout:
    """A working copy of the workflow and the config of its study."""

    folder: Path
    config: dict
    # What its run to the end has told.
    told: str = ""

    def snakemake(self, *arguments: str, **changes: object) -> subprocess.CompletedProcess:
        """Run Snakemake here on the study's config with some top-level keys changed."""
        return self.run(*arguments, "--cores", "2", config=self.config | changes)

    def run(
        self, *arguments: str, config: dict | None = None, **environment: str
    ) -> subprocess.CompletedProcess:
        """Run Snakemake with just these arguments, this config and these environment variables."""
        # Tests in several processes look at the same checkout, each with its own config.
        path = self.folder / "config" / f"tiny-{os.getpid()}.yaml"
        path.write_text(yaml.safe_dump(config or self.config))
        command = [sys.executable, "-m", "snakemake", *arguments, "--configfile", str(path)]
        return run_in(self.folder, *command, **environment)

    def planned(self, *arguments: str, **changes: object) -> set[str]:
        """Rules that a dry run would run."""
        return planned_rules(self.snakemake("--quiet", "rules", "--dry-run", *arguments, **changes))

    def copy(self, folder: Path) -> "Checkout":
        """The same files, as old as here."""
        shutil.copytree(self.folder, folder, copy_function=shutil.copy2)
        return Checkout(folder, self.config)


def finished_study(shared_folder: Path, config: dict) -> Checkout:
    """The study of a config, run to its end once for all tests."""

    def make(folder: Path) -> None:
        done = Checkout(new_checkout(folder), config).snakemake()
        assert done.returncode == 0, done.stdout + done.stderr
        (folder / "told.txt").write_text(done.stderr)

    folder = made_once(shared_folder / "finished", make)
    return Checkout(folder, config, told=(folder / "told.txt").read_text())
