"""Notes on models within a figure: what a reader must know of a model to read its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import altair as alt

# Characters of a subtitle's line, which is not broken by itself.
WIDTH = 100


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
    title = chart.title
    lines = [*title.subtitle, *(line for note in named for line in wrap(note, WIDTH))]
    chart = chart.properties(title=alt.Title(title.text, subtitle=lines))
    return chart, " ".join([caption, *named])
