"""A command about a study: its file is read and checked, and what is wrong is told in one line."""

import sys
from collections.abc import Callable
from pathlib import Path

from selfrepair.errors import InputError
from selfrepair.study.config import Config, read_study


def run(main: Callable[[Config], None]) -> None:
    """main(config) for the study that the command line names."""
    path = Path(sys.argv[1])
    try:
        main(read_study(path, schema=Path("config/schema.yaml")))
    except (InputError, OSError) as error:
        sys.exit(f"error: {path}: {' '.join(str(error).split())}")
