"""Names, notes and texts of strangers where they would be read as Markdown: shown as they are written."""

from __future__ import annotations

import re

# What opens an element, code, mathematics (which may hold links) or the next cell of a table. A backslash is written as
# an entity, because two of them open mathematics in a notebook.
_MARKS = str.maketrans(
    {"<": "&lt;", "\\": "&#92;", "$": "&#36;", "`": "\\`", "|": "\\|", "*": "\\*"}
)
# Between the text of a link and its address. Other brackets are those of intervals.
_LINK = re.compile(r"\](?=[(\[:])")
# Inside a word it is no mark.
_EMPHASIS = re.compile(r"(?<!\w)_|_(?!\w)")


def inert(text: str) -> str:
    """Text as Markdown that shows it and does nothing; its lines stay lines."""
    return _EMPHASIS.sub(r"\\_", _LINK.sub(r"]\\", text.translate(_MARKS)))


def inert_line(text: str) -> str:
    """The same in one line, which cannot leave its heading, item or cell."""
    return " ".join(inert(text).split())
