"""Figures of the catalogue, drawn from the tables of a results folder. Altair is loaded on first use."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from ..catalogue import FIGURES, PUBLISHED, Figure
from ..errors import InputError
from .folder import ModelFolder, did_you_mean

if TYPE_CHECKING:
    import altair as alt

ALL = (*FIGURES, PUBLISHED)


def figure_named(name: str) -> Figure:
    """The figure of the catalogue with this key ("E6") or name ("breakdown-by-head").

    Raises:
        InputError: there is none.
    """
    named = {word.lower(): figure for figure in ALL for word in (figure.key, figure.name)}
    if name.lower() in named:
        return named[name.lower()]
    keys = [figure.key for figure in ALL]
    names = [*keys, *(figure.name for figure in ALL)]
    raise InputError(f"figure {name!r}: {did_you_mean(name, names)} There are {', '.join(keys)}")


def draw(figure: Figure, models: Sequence[ModelFolder]) -> tuple[alt.TopLevelMixin, str]:
    """The chart and its caption, the same as the study's own.

    Raises:
        InputError: a table is missing, or cannot be drawn.
    """
    from ..figures.drawing import drawn

    return drawn(
        import_module(f"..figures.{figure.module}", __package__),
        [[model.table(name) for model in models] for name in figure.tables],
        notes=[model.clean["notes"] for model in models],
        weights=[model.weights for model in models],
    )
