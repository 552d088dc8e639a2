"""A figure of what was not measured: it says so in words, and why."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

import altair as alt
import polars as pl

from ..vocabulary import NO_NEURONS
from . import words
from .notes import WIDTH
from .rows import check_columns

NOT_MEASURED = f"Not measured: {NO_NEURONS}."
NOT_MAPPED = (
    "Not measured: no ablation of this study keeps a map of who repairs (map: true of an ablation in the"
    " config)."
)
NOT_WHOLE = "Not measured: the sweeps of this study ablated no such group of layers whole (sweep.heads in the config)."


def is_unmeasured(figure: str, table: pl.DataFrame, name: str, *, columns: Sequence[str]) -> bool:
    """Whether a table was left empty: of a neuron experiment, because the model has no such neurons; of
    the repair map, because the study keeps none.

    Raises:
        InputError: a column is missing.
    """
    check_columns(figure, table, name, columns)
    return table.is_empty()


def unmeasured(title: str, reason: str = NOT_MEASURED) -> alt.Chart:
    """The title and the reason, in place of panels."""
    line = alt.Chart(alt.InlineData(values=[{"words": "Not measured"}]))
    chart = line.mark_text(fontSize=14).encode(text="words:N").properties(width=600, height=80)
    return words.titled(chart, title, *wrap(reason, WIDTH))
