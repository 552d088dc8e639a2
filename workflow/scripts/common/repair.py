"""What a run does about files that are damaged or missing before it calls Snakemake, which sees neither."""

import os
import sys
from collections.abc import Collection, Iterable
from itertools import chain
from pathlib import Path

from common.recorded_files import objects_of, recorded_md5
from common.records import SHARD, note, noted_sha256, read_records
from common.study_jobs import jobs_of_study
from selfrepair.files.archives import archive_of
from selfrepair.files.integrity import (
    Digests,
    Fault,
    changed_files,
    damaged_tensors,
    lacking_shards,
)
from selfrepair.files.storage import file_sha256, sidecar, write_bytes

# Where damaged files are put.
ASIDE = Path(".snakemake/damaged")
REMEDY = f"set aside in {ASIDE}/, to be fetched or made again"


class Repair:
    """Of one study in a checkout, which is the current folder."""

    def __init__(self, checkout: Path, study: str, config: Path) -> None:
        self._checkout, self._config = checkout, config
        self._folders = (f"results/{study}/", f"figures/{study}/")
        self._records = read_records(checkout, self._folders)
        # Shards that nothing but a target asks for.
        self._shards: list[str] = []

    def set_aside_edited(self) -> None:
        """Set aside every file that is no longer what was noted of it; not shards, which their readers check."""
        noted = noted_sha256(self._checkout, self._records)
        small = {Path(path): sha256 for path, sha256 in noted.items() if not SHARD.fullmatch(path)}
        what = "damaged: its content has changed since it was made"
        self._set_aside(changed_files(small, Digests(), what=what, remedy=REMEDY))

    def set_aside_damaged(self) -> bool:
        """Set aside every damaged file; whether there was any."""
        folder, digests = Path(self._folders[0]), Digests()
        tensors = damaged_tensors(folder, digests, remedy=REMEDY)
        return self._set_aside(chain(tensors, lacking_shards(folder, remedy="made again")))

    def note(self) -> None:
        """Note what has been made, for the next run to compare with."""
        note(self._checkout, read_records(self._checkout, self._folders))

    def missing(self) -> list[str]:
        """Files that had been made and are not there, in the order in which they were: if they are made before
        all else, and come out as they were, nothing that depends on them is made again."""
        gone = {path for path in self._records if not Path(path).exists()}
        if not gone | set(self._shards):
            return []
        # A store may lack what the study's target does not name.
        gone &= set(jobs_of_study(self._checkout, self._config).complete)
        left = gone - self.fetched(gone) | set(self._shards)
        made = {path: record.ended for path, record in self._records.items()}
        return sorted(left, key=lambda path: made.get(path, 0.0))

    def fetched(self, gone: Collection[str]) -> set[str]:
        """Those of the missing files that DVC's cache or the bundled store has just as they were noted; they are
        put in their places."""
        noted = noted_sha256(self._checkout, self._records)
        recorded = recorded_md5(self._checkout, self._folders)
        found = set()
        for path in sorted(set(gone) & noted.keys() & recorded.keys()):
            for kept in objects_of(self._checkout, recorded[path]):
                if path not in found and file_sha256(kept) == noted[path]:
                    write_bytes(Path(path), kept.read_bytes())
                    print(f"{path}: as it was, from {kept}", file=sys.stderr)
                    found.add(path)
        return found

    def _set_aside(self, faults: Iterable[Fault]) -> bool:
        found = list(faults)
        for fault in found:
            print(f"warning: {fault}", file=sys.stderr)
            shard = fault.path.with_suffix(".safetensors")
            pair = {fault.path, sidecar(fault.path)} if shard.exists() else {fault.path}
            if SHARD.fullmatch(str(shard)):
                # The archive has the tensors, and the sidecar is the store's.
                packed = archive_of(shard.parent).is_file()
                if packed and fault.path == shard:
                    pair = {shard}
                else:
                    self._shards.append(str(shard))
                    pair = {shard, sidecar(shard)}
            for path in pair:
                if path.exists():
                    (ASIDE / path).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(path, ASIDE / path)
        return bool(found)
