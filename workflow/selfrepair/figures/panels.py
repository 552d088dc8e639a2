"""Figures of chosen heads, E3 and E7 to E10: a panel per head (and MLP), and words about all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from ..vocabulary import NO_NEURONS
from . import words
from .rows import heads_of, models_of

# Why a table of neurons may be empty.
NOT_MEASURED = f"Not measured: {NO_NEURONS}."


def panel_per_head(
    rows: pl.DataFrame, note: Callable[[pl.DataFrame], Sequence[str]] = lambda panel: ()
) -> pl.DataFrame:
    """Sorts the rows by head (and MLP, of several) and adds `panel`, the heading of their panel: the
    head's name and, below it, the lines that `note` gives for the panel's rows."""
    keys = ("mlp_layer",) if "mlp_layer" in rows.columns else ()
    panels = []
    for head in heads_of(rows, *keys):
        panel = rows.filter(**head)
        name = words.head_name(head)
        if keys and rows["mlp_layer"].n_unique() > 1:
            name = f"{name}; MLP of layer {head['mlp_layer']}"
        panels.append(panel.with_columns(panel=pl.lit("\n".join([name, *note(panel)]))))
    return pl.concat(panels)


def mlps(rows: pl.DataFrame) -> str:
    """the MLP of layer 29, or the MLPs of layers 28 and 29."""
    layers = [str(layer) for layer in rows["mlp_layer"].unique().sort()]
    several = "s" * (len(layers) > 1)
    return f"the MLP{several} of layer{several} {words.listed(layers)}"


def about_neurons(rows: pl.DataFrame, sample: str) -> str:
    """A subtitle's first line; sample: how many tokens and prompts."""
    model = models_of(rows)[0]
    return f"{model}, resample ablation, neurons of {mlps(rows)}; {words.FROM_TOP_TOKENS}: {sample}"


def heads_and_tokens(rows: pl.DataFrame, sample: str, *, ablation: str = "resample") -> str:
    """The heads, ablation and tokens within a caption's sentence."""
    return (
        f"{words.named_heads(heads_of(rows))} of {models_of(rows)[0]} under {ablation} ablation, on"
        f" {words.FROM_TOP_TOKENS} (those with its largest direct effect; {sample})"
    )
