"""How results look in a terminal and in a notebook."""

from __future__ import annotations

from html import escape
from textwrap import fill

import polars as pl

from ..inert import inert

# Characters of a line in a terminal.
WIDTH = 100


class Text(str):
    """A str of paragraphs, a line each; shown filled, in a notebook as paragraphs."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "\n".join(fill(line, WIDTH, break_on_hyphens=False) for line in self.splitlines())

    def _repr_markdown_(self) -> str:
        return "\n\n".join(inert(self).splitlines())


def as_text(title: str, rows: pl.DataFrame, hint: str) -> str:
    """A title, a table of strings, and what to try next."""
    with pl.Config(
        tbl_hide_column_data_types=True,
        tbl_hide_dataframe_shape=True,
        tbl_formatting="NOTHING",
        tbl_width_chars=400,
        tbl_rows=-1,
        fmt_str_lengths=400,
    ):
        return f"{title}\n{rows}\n{hint}"


def as_html(title: str, rows: pl.DataFrame, hint: str) -> str:
    """The same as HTML."""
    head = "".join(f"<th>{escape(name)}</th>" for name in rows.columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(str(value))}</td>' for value in row)}</tr>"
        for row in rows.iter_rows()
    )
    return (
        f"<p><b>{escape(title)}</b></p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<p><code>{escape(hint)}</code></p>"
    )
