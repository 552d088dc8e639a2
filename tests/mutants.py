"""Mutation testing of the measuring core: what share of small changes to a module the tests notice.

`make mutants MODULE=measure/ablation SAMPLE=20` changes one operator, number or argument of the module at a time,
for a seeded sample of all such changes, and runs the module's own tests and the property tests on each. mutmut wants
a source folder of a name that it knows, so it works in a folder of links, `.mutants`. It changes no function that
has a decorator.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".mutants"
CORE = [
    *(
        f"measure/{name}"
        for name in (
            *("ablation", "ablation_batch", "sweep_batch", "token_batch", "repair_map"),
            *("selection", "drawing", "ranking", "prompt_sums", "neurons", "refeed"),
            *("feed_back", "instances"),
        )
    ),
    *(f"model/{name}" for name in ("direct_effect", "replay", "norms", "summing", "products")),
    *(f"tables/{name}" for name in ("bootstrap", "estimates", "summaries", "depth")),
]
# Errors' words are no arithmetic, and their types are what other tests are about.
SETTINGS = """[mutmut]
source_paths=src
only_mutate=src/selfrepair/{module}.py
do_not_mutate_patterns=raise \\w+|check_\\w+
pytest_add_cli_args=-pno:xdist
    -pno:cacheprovider
pytest_add_cli_args_test_selection={tests}
process_isolation=forkserver
timeout_multiplier=4
timeout_constant=10
"""


def tests_of(module: str) -> list[str]:
    """The module's own tests, if it has any, and the property tests."""
    package, name = module.split("/")
    own = f"tests/unit/{package}/test_{name}.py"
    properties = "tests/properties/test_statistics.py"
    if package in ("measure", "model") and name not in ("selection", "drawing", "prompt_sums"):
        properties = "tests/properties/test_measuring.py"
    return [*([own] if (ROOT / own).exists() else []), properties]


def prepare(module: str) -> None:
    """Links to sources, tests and settings; nothing is left of another run."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    for name, target in (("src", "workflow"), ("tests", "tests"), ("config", "config")):
        (FOLDER / name).symlink_to(ROOT / target)
    (FOLDER / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
    tests = "\n    ".join(tests_of(module))
    (FOLDER / "setup.cfg").write_text(SETTINGS.format(module=module, tests=tests))
    os.chdir(FOLDER)


def drawn_mutants(module: str, *, sample: int, seed: int) -> tuple[list[str], int]:
    """Names of a sample of the module's mutants, and how many it has."""
    from mutmut.mutation.file_mutation import mutate_file_contents  # reads its settings from here
    from mutmut.utils.format_utils import get_mutant_name

    path = Path(f"src/selfrepair/{module}.py")
    found = mutate_file_contents(str(path), path.read_text()).mutant_names
    names = sorted(get_mutant_name(path, name) for name in found)
    return random.Random(seed).sample(names, min(sample, len(names))), len(names)


def main(module: str, sample: int, seed: int) -> int:
    if module not in CORE:
        print(f"error: MODULE={module!r} is not one of {', '.join(CORE)}", file=sys.stderr)
        return 2
    prepare(module)
    names, count = drawn_mutants(module, sample=sample, seed=seed)
    if not names:
        print(f"{module}: none of its functions can be changed")
        return 0
    mutmut = Path(sys.executable).with_name("mutmut")
    run = [mutmut, "run", "--max-children", "1", *names]
    environment = {"OMP_NUM_THREADS": "1", "SHRINK": "0"} | dict(os.environ)
    done = subprocess.run(run, env=environment, capture_output=True, text=True)
    results = done.stdout.rpartition("Mutant results")[2].split("\n")
    killed = [line.split()[1] for line in results if line.startswith(("🎉", "⏰"))]
    left = sorted(set(names) - set(killed))
    if done.returncode or not any(name in done.stdout for name in names):
        print(done.stdout[-3000:], done.stderr[-3000:], file=sys.stderr)
        return 1
    print(f"{module}: {len(killed)} of {len(names)} mutants killed, drawn from {count}")
    for name in left:
        shown = subprocess.run([mutmut, "show", name], capture_output=True, text=True).stdout
        print(f"\nsurvived: {name}\n{shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
