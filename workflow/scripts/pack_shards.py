"""Pack the shards of each measurement in a folder for the store: `pack_shards.py FOLDER`."""

import sys
from pathlib import Path

from selfrepair.errors import InputError
from selfrepair.files.archives import pack_shards

if __name__ == "__main__":
    try:
        for index in sorted(Path(sys.argv[1]).glob("*.json")):
            pack_shards(index)
    except InputError as error:
        sys.exit(f"error: {error}")
