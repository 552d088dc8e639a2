"""One figure of the catalogue with its caption, from the tables of each model that it is drawn of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from types import ModuleType
from typing import Any

import altair as alt
import polars as pl

from . import words
from .rows import NotMeasured

# Characters of a subtitle's line, which is not broken by itself.
WIDTH = 100


def drawn(
    figure: ModuleType,
    parts: Sequence[Sequence[pl.DataFrame]],
    *,
    notes: Sequence[Sequence[str]],
    weights: Sequence[str | None],
) -> tuple[Any, str]:
    """The chart and its caption, with what a reader must know of the models; words in place of panels, if
    what it shows was not measured.

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
    try:
        chart, caption = figure.draw(*tables), figure.caption(*tables)
    except NotMeasured as reason:
        chart, caption = not_measured(figure.TITLE, str(reason)), str(reason)
    chart, caption = noted(chart, caption, dict(zip(titles, notes, strict=True)))
    about = zip(titles, weights, strict=True)
    caption += "".join(
        f" Weights of {title or 'this model'}: {note}." for title, note in about if note
    )
    return chart, caption


def not_measured(title: str, reason: str) -> alt.Chart:
    """The title and the reason, in place of panels."""
    line = alt.Chart(alt.InlineData(values=[{"words": "Not measured"}]), width=600, height=80)
    chart = line.mark_text(fontSize=14).encode(text="words:N")
    return words.titled(chart, title, *wrap(reason, WIDTH))


def noted(chart: Any, caption: str, notes: Mapping[str, Sequence[str]]) -> tuple[Any, str]:
    """The chart with the notes below its subtitle, and the caption with the notes behind it.

    notes: by model; in a figure of several models each says which one it is about.
    """
    named = [
        f"{model}: {note}" if len(notes) > 1 else note
        for model, about in notes.items()
        for note in about
    ]
    if not named:
        return chart, caption
    lines = [line for note in named for line in wrap(note, WIDTH)]
    title = chart.title
    return words.titled(chart, title.text, *title.subtitle, *lines), " ".join([caption, *named])
