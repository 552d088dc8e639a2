"""Damage that a file may take."""

import os
from pathlib import Path


def flip(path: Path, at: int | None = None) -> None:
    """Change one bit of the byte at `at`, by default in the middle, and nothing of the file's time."""
    time = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(time.st_atime_ns, time.st_mtime_ns))
