"""What DVC ignores: .dvcignore for the recorded studies."""

import base64
import string
from collections.abc import Iterable

# The tensors of all shards; their sidecars are kept.
SHARDS = "shard-*.safetensors"


def dvc_ignore(paths: Iterable[str]) -> str:
    """.dvcignore: of Snakemake's records, named by the base64 of a path, only those of files whose paths
    begin so."""
    kept = "".join(f"!/.snakemake/metadata/{base64_pattern(path)}*\n" for path in paths)
    return (
        "# Written by `make dvc-stages`. The bundled store, logs, shards (packed beside their index, or joined\n"
        "# into clean.safetensors), and records of other studies.\n"
        f"/artifacts\n/logs\n/results/**/{SHARDS}\n/.snakemake/metadata/*\n{kept}"
    )


def base64_pattern(prefix: str) -> str:
    """What the base64 of every text with this prefix begins with, as a pattern of .gitignore."""
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    data = prefix.encode()
    whole = len(data) // 3 * 3
    pattern, rest = base64.urlsafe_b64encode(data[:whole]).decode(), data[whole:]
    if not rest:
        return pattern
    # The last character mixes the prefix's last bits with those of the next byte, whatever it is.
    bits = int.from_bytes(rest, "big")
    free = 6 - 8 * len(rest) % 6
    fixed = [bits >> shift & 63 for shift in range(8 * len(rest) - 6, -1, -6)]
    last = (bits << free) & 63
    choices = sorted((alphabet[last + i] for i in range(1 << free)), key="-".__eq__)
    return pattern + "".join(alphabet[i] for i in fixed) + f"[{''.join(choices)}]"
