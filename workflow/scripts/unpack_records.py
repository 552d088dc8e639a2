"""Check what a pull has brought, and unpack the records of Snakemake's; what `make pull` ends with."""

import sys
from pathlib import Path

from common.packed_records import unpack_records
from common.recorded_files import delete_wrong
from selfrepair.errors import InputError

if __name__ == "__main__":
    wrong = delete_wrong(Path())
    if wrong:
        sys.exit(
            f"error: the store has sent {len(wrong)} files that are not the recorded ones ({wrong[0]}), deleted: try "
            "again, name another store, or run make study"
        )
    try:
        unpack_records(Path())
    except InputError as error:
        sys.exit(f"error: {error}")
