"""Hash every result of a study again: `verify.py config/config.yaml`; what `make verify` calls.

Compares with sidecars and indices, with what Snakemake noted and DVC recorded, and with the config. Prints a
line for each file that is missing, damaged, or of another config, with the remedy; exit status 1 if there is
one.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

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


def main(config):
    unpack_records(Path())
    study, file = config["study"], Path(sys.argv[1])
    folders = (f"results/{study}/", f"figures/{study}/")
    files = [path for folder in folders for path in Path(folder).rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    with tqdm(total=size, unit="B", unit_scale=True, desc=study, leave=False, disable=None) as bar:
        faults = first_of_each(all_faults(folders, file, Digests(bar.update)))
    for fault in faults:
        print(fault)
    if faults:
        sys.exit(f"error: {file}: {len(faults)} files cannot be trusted")
    print(
        f"{file}: {len(files)} files, {size / 1e6:.0f} MB: all there, whole, and made under this config"
    )


def all_faults(folders: tuple[str, str], config: Path, digests: Digests) -> Iterator[Fault]:
    """Every fault of a study's results and figures; of one file the plainest first."""
    again = f"`make study CONFIG={config}` makes it again"
    results, records = Path(folders[0]), read_records(Path(), folders)
    study, recorded = jobs_of_study(Path.cwd(), config), recorded_md5(Path(), folders)
    pull = f"`make pull CONFIG={config}` gets it"
    for path in sorted({*study.complete, *recorded}):
        if not Path(path).is_file():
            yield Fault(Path(path), "missing", pull if path in recorded else again)
    yield from damaged_tensors(results, digests, remedy=again)
    yield from lacking_shards(results, remedy=again)
    noted = {Path(path): sha256 for path, sha256 in noted_sha256(Path(), records).items()}
    what = "damaged: its content has changed since it was made"
    yield from changed_files(noted, digests, what=what, remedy=again)
    yield from of_other_settings(study.jobs, records, remedy=again)
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
