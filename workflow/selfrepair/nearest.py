"""The valid name that a wrong one is most like."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def nearest(wrong: Any, known: Iterable[Any], *, likeness: float = 0.6) -> str | None:
    """The known name most like a wrong one, whatever the case of its letters; None if none is so like it.

    likeness: the least that counts, from 0 (any name) to 1 (the same name).
    """
    names = {str(name).lower(): str(name) for name in known}
    found = difflib.get_close_matches(str(wrong).lower(), names, n=1, cutoff=likeness)
    return names[found[0]] if found else None
