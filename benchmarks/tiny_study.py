"""What a study costs besides its computing: a tiny model and 12 prompts, from text to page, job by job.

    .venv/bin/python benchmarks/tiny_study.py [--keep FOLDER]

Runs what `make study` runs in a checkout of its own, in a temporary folder or in the one given, and prints a
Markdown table of the processor seconds of every process, which each tells at its end (so not the server that jobs are
forked from, which is killed: the import of its libraries, 5 s). Seconds that pass say
something on a quiet machine alone; a busy one lengthens processor seconds too, by half or more.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

# Python imports it when it starts: a line of JSON when the process ends.
NOTED = """
import atexit, json, os, sys, time

def note():
    main = sys.modules["__main__"]
    job = getattr(main, "snakemake", None)
    times = os.times()
    name = job.rule if job else os.path.basename(sys.argv[0])
    name = "snakemake" if name == "__main__.py" else name
    began = int(open("/proc/self/stat").read().rpartition(")")[2].split()[19])  # of a fork its own
    wall = time.clock_gettime(time.CLOCK_BOOTTIME) - began / os.sysconf("SC_CLK_TCK")
    line = {"name": name, "cpu": times.user + times.system, "wall": wall}
    with open(os.environ["NOTED_IN"], "a") as lines:
        lines.write(json.dumps(line) + "\\n")

atexit.register(note)
"""


class Cost(NamedTuple):
    """Processor seconds of all processes of a name, how many they were, and the seconds that they took."""

    name: str
    processes: int
    cpu: float
    wall: float


def config_of(folder: Path) -> dict[str, Any]:
    """The study: a model of three layers of three heads, and words that are made up."""
    from tiny_models import random_words, save_tiny_model

    save_tiny_model("gpt2", folder / "model")
    text = folder / "words.txt"
    text.write_text("\n\n\n".join(random_words(60, seed=seed) for seed in range(9)))
    asked = {"prompts": 12, "tokens_per_head": 4, "random_tokens_per_head": 4}
    return {
        "study": "tiny",
        "models": {"gpt2": {"title": "Tiny GPT-2", "name": str(folder / "model")}},
        "text": {
            "prompts": 12,
            "tokens_per_prompt": 16,
            "sources": {"words": {"kind": "file", "path": str(text), "licence": "made up"}},
        },
        "clean": {"candidate_share": 0.2},
        "ablations": {"resample": {**asked, "map": True}, "zero": asked},
        "experiments": {
            "prompts": 12,
            "iterative_prompts": 12,
            "heads_per_model": 2,
            "mlps": [1, -1],
            "chosen_tokens_per_head": 4,
            "chosen_random_tokens_per_head": 20,
            "iterative_tokens_per_head": 2,
        },
    }


def run_study(checkout: Path, config: Path) -> tuple[list[dict[str, Any]], float]:
    """What each process has told of itself; seconds passed."""
    hooks, told = checkout / "hooks", checkout / "processes.jsonl"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(NOTED)
    environment = os.environ | {
        "PYTHONPATH": f"{hooks}{os.pathsep}{checkout / 'workflow'}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NOTED_IN": str(told),
        "HF_HUB_OFFLINE": "1",
    }
    start = time.monotonic()
    for script in (["fetch.py", config], ["study.py", config, "profiles/default", "--cores", "2"]):
        command = [sys.executable, f"workflow/scripts/{script[0]}", *map(str, script[1:])]
        subprocess.run(command, cwd=checkout, env=environment, check=True)
    passed = time.monotonic() - start
    return [json.loads(line) for line in told.read_text().splitlines()], passed


def costs(processes: Iterable[dict[str, Any]]) -> list[Cost]:
    """By name, the dearest first."""
    by_name = defaultdict(list)
    for process in processes:
        by_name[process["name"]].append(process)
    found = [
        Cost(name, len(them), sum(p["cpu"] for p in them), sum(p["wall"] for p in them))
        for name, them in by_name.items()
    ]
    return sorted(found, key=lambda cost: -cost.cpu)


def main(folder: Path) -> None:
    from checkouts import new_checkout

    checkout = new_checkout(folder / "checkout")
    config = checkout / "config/tiny.yaml"
    config.write_text(yaml.safe_dump(config_of(folder)))
    processes, passed = run_study(checkout, config)
    used = sum(process["cpu"] for process in processes)
    print("| job | processes | processor s | s |\n|---|---:|---:|---:|")
    for cost in costs(processes):
        print(f"| {cost.name} | {cost.processes} | {cost.cpu:.2f} | {cost.wall:.1f} |")
    print(f"| all | {len(processes)} | {used:.1f} | {passed:.0f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a folder to run in and keep")
    asked = parser.parse_args()
    if asked.keep:
        main(asked.keep.resolve())
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
