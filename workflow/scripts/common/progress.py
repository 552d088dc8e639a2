"""The progress of a job that runs a model, told line by line."""

import sys
from typing import Any

from tqdm import tqdm

FORMAT = "{desc}: {percentage:3.0f} % after {elapsed}, {remaining} left"


class Lines:
    """Standard error, a line per report: jobs run side by side and must not overwrite each other."""

    def write(self, text: str) -> None:
        if text.strip():
            print(text.strip(), file=sys.stderr, flush=True)

    def flush(self) -> None:
        pass


def progress_bar(snakemake: Any, name: str) -> tqdm:
    """A bar of 100 for one shard of `name`."""
    wildcards = snakemake.wildcards
    title = f"{wildcards.model} {name} {int(wildcards.shard) + 1}/{wildcards.shards}"
    return tqdm(total=100, desc=title, file=Lines(), bar_format=FORMAT, mininterval=10, miniters=0)
