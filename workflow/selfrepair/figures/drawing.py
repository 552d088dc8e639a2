"""One figure of the catalogue with its caption, from the tables of each model that it is drawn of."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import polars as pl

from .notes import noted


def drawn(
    figure: ModuleType,
    parts: Sequence[Sequence[pl.DataFrame]],
    *,
    notes: Sequence[Sequence[str]],
    weights: Sequence[str | None],
) -> tuple[Any, str]:
    """The chart and its caption, with what a reader must know of the models.

    Args:
        figure: the module of `selfrepair.figures` with `draw` and `caption`.
        parts: for each table that both take, that of each model, in the order of the study.
        notes: of each model, from its clean pass: below the subtitle and in the caption.
        weights: of each model, what is to be known of its weights (None: nothing): in the caption.
    Raises:
        InputError: a table that cannot be drawn.
    """
    tables = [pl.concat(part) for part in parts]
    # A table that was left empty, of one model, does not name it, and need not.
    titles = ["".join(table["model"].head(1)) for table in parts[0]]
    by_title = dict(zip(titles, notes, strict=True))
    chart, caption = noted(figure.draw(*tables), figure.caption(*tables), by_title)
    about = zip(titles, weights, strict=True)
    caption += "".join(
        f" Weights of {title or 'this model'}: {note}." for title, note in about if note
    )
    return chart, caption
