"""Pack Snakemake's records for the store: `pack_records.py results/STUDY/ figures/STUDY/ ...`, of files whose paths
begin so."""

import sys
from pathlib import Path

from common.packed_records import pack_records
from selfrepair.errors import InputError

if __name__ == "__main__":
    try:
        pack_records(Path(), tuple(sys.argv[1:]))
    except InputError as error:
        sys.exit(f"error: {error}")
