"""Unpack the records of Snakemake's that a pull has brought; what `make pull` ends with."""

import sys
from pathlib import Path

from common.packed_records import unpack_records
from selfrepair.errors import InputError

if __name__ == "__main__":
    try:
        unpack_records(Path())
    except InputError as error:
        sys.exit(f"error: {error}")
