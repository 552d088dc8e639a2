"""Mutation testing of the measuring core: what share of small changes to a module the tests notice.

`make mutants MODULE=measure/ablation SAMPLE=20` changes one operator, number or argument of the module at a time,
for a seeded sample of all such changes, and runs the module's own tests and the property tests on each. Several
modules, separated by commas, share what a run costs before the first change; without any, all of the core. mutmut wants
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
MUTMUT = Path(sys.executable).with_name("mutmut")
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
# Where a module's tests have not its name.
TESTED_BY = {
    "measure/ablation_batch": "tests/unit/measure/test_sweep.py",
    "measure/sweep_batch": "tests/unit/measure/test_sweep.py",
    "measure/token_batch": "tests/unit/measure/test_token_sweep.py",
    "measure/neurons": "tests/integration/test_experiments.py",
    "measure/refeed": "tests/integration/test_experiments.py",
    "measure/feed_back": "tests/integration/test_experiments.py",
    "model/summing": "tests/unit/measure/test_repair_map.py",
    "model/products": "tests/unit/model/test_norms.py",
}
# Errors' words are no arithmetic, and their types are what other tests are about.
SETTINGS = """[mutmut]
source_paths=src
only_mutate={paths}
do_not_mutate_patterns=raise \\w+|check_\\w+
pytest_add_cli_args=-pno:xdist
    -pno:cacheprovider
pytest_add_cli_args_test_selection={tests}
process_isolation=forkserver
timeout_multiplier=4
timeout_constant=10
"""


def tests_of(module: str) -> list[str]:
    """The module's own tests, if it has any, or those of the experiment that it is a part of, and the property tests."""
    package, name = module.split("/")
    own = TESTED_BY.get(module, f"tests/unit/{package}/test_{name}.py")
    properties = "tests/properties/test_measuring.py"
    if package == "tables" or name in ("selection", "drawing", "prompt_sums", "ranking"):
        properties = "tests/properties/test_statistics.py"
    return [*([own] if (ROOT / own).exists() else []), properties]


def prepare(modules: list[str]) -> None:
    """Links to sources, tests and settings; nothing is left of another run."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    for name, target in (("src", "workflow"), ("tests", "tests"), ("config", "config")):
        (FOLDER / name).symlink_to(ROOT / target)
    (FOLDER / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
    tests = sorted({test for module in modules for test in tests_of(module)})
    paths = [f"src/selfrepair/{module}.py" for module in modules]
    settings = SETTINGS.format(paths="\n    ".join(paths), tests="\n    ".join(tests))
    (FOLDER / "setup.cfg").write_text(settings)
    os.chdir(FOLDER)


def drawn_mutants(module: str, *, sample: int, seed: int) -> tuple[list[str], int]:
    """Names of a sample of the module's mutants, and how many it has."""
    from mutmut.mutation.file_mutation import mutate_file_contents  # reads its settings from here
    from mutmut.utils.format_utils import get_mutant_name

    path = Path(f"src/selfrepair/{module}.py")
    found = mutate_file_contents(str(path), path.read_text()).mutant_names
    names = sorted(get_mutant_name(path, name) for name in found)
    return random.Random(seed).sample(names, min(sample, len(names))), len(names)


def killed_of(names: list[str]) -> set[str]:
    """Run mutmut on mutants; which of them some test fails for, or takes much too long for.

    Raises:
        RuntimeError: mutmut did not come to its end.
    """
    environment = {"OMP_NUM_THREADS": "1", "SHRINK": "0"} | dict(os.environ)
    run = [MUTMUT, "run", "--max-children", "1", *names]
    done = subprocess.run(run, env=environment, capture_output=True, text=True)
    _, found, results = done.stdout.rpartition("Mutant results")
    if done.returncode or not found:
        raise RuntimeError(f"mutmut: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    lines = [line.split() for line in results.splitlines() if line.startswith(("🎉", "⏰"))]
    return {name for _, name in lines}


def main(modules: list[str], sample: int, seed: int) -> int:
    for module in modules:
        if module not in CORE:
            print(f"error: MODULE={module} is not one of {', '.join(CORE)}", file=sys.stderr)
            return 2
    prepare(modules)
    drawn = {module: drawn_mutants(module, sample=sample, seed=seed) for module in modules}
    killed = killed_of([name for names, _ in drawn.values() for name in names])
    for module, (names, count) in drawn.items():
        own = killed & {*names}
        print(f"{module}: {len(own)} of {len(names)} mutants killed, drawn from {count}")
    for name in sorted({name for names, _ in drawn.values() for name in names} - killed):
        shown = subprocess.run([MUTMUT, "show", name], capture_output=True, text=True).stdout
        print(f"\nsurvived: {name}\n{shown}")
    return 0


if __name__ == "__main__":
    named, size, number = sys.argv[1:]
    sys.exit(main(named.split(",") if named else CORE, int(size), int(number)))
