"""Hash every result of a study again: `verify.py config/config.yaml`; what `make verify` calls.

Compares with sidecars and indices, with what Snakemake noted and DVC recorded, and with the config; models that are
here, with what was noted of them when they were vetted. Prints a
line for each file that is missing, damaged, or of another config, with the remedy; exit status 1 if there is
one.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from common.kept_models import faults_of_models, folder_here
from common.made_with import of_other_settings
from common.packed_records import unpack_records
from common.recorded_files import recorded_md5
from common.records import noted_sha256, read_records
from common.study_command import run
from common.study_jobs import jobs_of_study
from selfrepair.files.integrity import (
    Digests,
    Fault,
    changed_files,
    damaged_tensors,
    lacking_shards,
)
from selfrepair.files.wheels import wheels_of


def main(config):
    unpack_records(Path())
    study, file = config["study"], Path(sys.argv[1])
    folders = (f"results/{study}/", f"figures/{study}/")
    files = [path for folder in folders for path in Path(folder).rglob("*") if path.is_file()]
    models, cache = folders_of_models(config), Path(config["cache"])
    weights = [path for _, folder in models for path in folder.iterdir() if path.is_file()]
    size, more = (sum(path.stat().st_size for path in paths) for paths in (files, weights))
    bytes_of = {"unit": "B", "unit_scale": True, "leave": False, "disable": None}
    with tqdm(total=size + more, desc=study, **bytes_of) as bar:
        digests = Digests(bar.update)
        of_models = faults_of_models(models, cache, sha256=digests.of, remedy=again(file))
        faults = first_of_each([*all_faults(folders, file, digests), *of_models])
    for fault in faults:
        print(fault)
    if faults:
        sys.exit(f"error: {file}: {len(faults)} files cannot be trusted")
    print(
        f"{file}: {len(files)} files, {size / 1e6:.0f} MB: all there, whole, and made under this config"
    )


def folders_of_models(config) -> list[tuple[dict, Path]]:
    """The models that are here, each with its folder: a study that was pulled needs none."""
    wheels, cache = wheels_of(config["wheels"]), Path(config["cache"])
    found = ((model, folder_here(model, wheels, cache)) for model in config["models"].values())
    return [(model, folder) for model, folder in found if folder]


def again(config: Path) -> str:
    return f"`make study CONFIG={config}` makes it again"


def all_faults(folders: tuple[str, str], config: Path, digests: Digests) -> Iterator[Fault]:
    """Every fault of a study's results and figures; of one file the plainest first."""
    remedy = again(config)
    results, records = Path(folders[0]), read_records(Path(), folders)
    study, recorded = jobs_of_study(Path.cwd(), config), recorded_md5(Path(), folders)
    pull = f"`make pull CONFIG={config}` gets it"
    for path in sorted({*study.complete, *recorded}):
        if not Path(path).is_file():
            yield Fault(Path(path), "missing", pull if path in recorded else remedy)
    yield from damaged_tensors(results, digests, remedy=remedy)
    yield from lacking_shards(results, remedy=remedy)
    noted = {Path(path): sha256 for path, sha256 in noted_sha256(Path(), records).items()}
    what = "damaged: its content has changed since it was made"
    yield from changed_files(noted, digests, what=what, remedy=remedy)
    yield from of_other_settings(study.jobs, records, remedy=remedy)
    yield from changed_files(
        {Path(path): md5 for path, md5 in recorded.items()},
        digests,
        algorithm="md5",
        what="is not the one that is recorded (dvc.lock)",
        remedy=f"`make pull CONFIG={config}` gets that one; if this one is right, `make record` keeps it",
    )


def first_of_each(faults: Iterable[Fault]) -> list[Fault]:
    """One fault of each file, sorted."""
    found: dict[Path, Fault] = {}
    for fault in faults:
        found.setdefault(fault.path, fault)
    return [found[path] for path in sorted(found)]


run(main)
