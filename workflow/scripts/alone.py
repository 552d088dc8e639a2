"""Run a command as the only run in this checkout (common/one_run.py): `alone.py COMMAND ...`."""

import os
import sys
from pathlib import Path

from common.one_run import clean_up, hold
from selfrepair.errors import InputError

if __name__ == "__main__":
    try:
        hold(Path())
        clean_up(Path())
    except InputError as error:
        sys.exit(f"error: {error}")
    os.execvp(sys.argv[1], sys.argv[1:])
