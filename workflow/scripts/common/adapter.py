"""What every script does around its one library call: log, and say what is wrong in one line."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Set before anything imports these libraries: their progress bars and notices are not the study's.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault(
    "HF_DATASETS_DISABLE_PROGRESS_BARS", os.environ["HF_HUB_DISABLE_PROGRESS_BARS"]
)
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DATASETS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from selfrepair.errors import ExactnessError, InputError


def warn(snakemake: Any, line: str) -> None:
    """Tell the user a line while the job goes on, and keep it in the rule's log."""
    print(f"warning: {line}", file=sys.stderr)
    with Path(snakemake.log[0]).open("a", encoding="utf-8") as log:
        log.write(f"warning: {line}\n")


def run(snakemake: Any, main: Callable[[Any], None]) -> None:
    """Call main(snakemake); on an error leave its line in the rule's log and exit with status 1."""
    log = Path(snakemake.log[0])
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("", encoding="utf-8")
    try:
        main(snakemake)
    except (InputError, ExactnessError) as error:
        log.write_text(f"error: {error}\n", encoding="utf-8")
        sys.exit(1)
    except Exception as error:
        summary = (str(error).splitlines() or [""])[0]
        line = f"error: {type(error).__name__}: {summary}"
        log.write_text(f"{traceback.format_exc()}\n{line}\n", encoding="utf-8")
        sys.exit(1)
