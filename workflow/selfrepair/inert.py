"""Names, notes and texts of strangers where they would be read as Markdown: shown as they are written."""

from __future__ import annotations

import re

# What opens an element, code, mathematics (which may hold links) or the next cell of a table. A backslash is written as
# an entity, because two of them open mathematics in a notebook.
_MARKS = str.maketrans(
    {"<": "&lt;", "\\": "&#92;", "$": "&#36;"} | {mark: f"\\{mark}" for mark in "`|*~"}
)
_ENTITY = re.compile(r"&(?=#?\w+;)")
# Between the text of a link and its address. Other brackets are those of intervals.
_LINK = re.compile(r"\](?=[(\[:])")
# Inside a word it is no mark.
_EMPHASIS = re.compile(r"(?<!\w)_|_(?!\w)")
# What opens a heading, a quotation, an item or a rule where a line begins.
_BEGINNING = re.compile(r"^([ \t]*(?:\d+(?=[.)](?:\s|$))|(?=[#>+=-])))", re.MULTILINE)


def inert(text: str) -> str:
    """Text as Markdown that shows it and does nothing; its lines stay lines."""
    return _BEGINNING.sub(r"\1\\", _within_lines(text))


def inert_line(text: str) -> str:
    """The same in one line, which cannot leave its heading, item or cell."""
    return _BEGINNING.sub(r"\1\\", " ".join(_within_lines(text).split()))


def _within_lines(text: str) -> str:
    marked = _LINK.sub(r"]\\", _ENTITY.sub("&amp;", text).translate(_MARKS))
    return _EMPHASIS.sub(r"\\_", marked)
