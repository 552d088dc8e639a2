"""Which heads a study ablates: `sweep.heads` of its config, for a model's sizes. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InputError
from ..other_ablations import ALL_HEADS
from ..vocabulary import SECOND_HALF, Head, second_half

# What a config names: a word, or a list.
Asked = str | Sequence[Sequence[int]]


def swept_heads(
    asked: Asked, n_layers: int, n_heads: int, *, name: str = "sweep.heads"
) -> list[Head]:
    """The heads that sweeps ablate, layer by layer.

    asked: the value of `sweep.heads`; n_heads: of a layer; name: the key, for the message.
    Raises:
        InputError: the model has no such head.
    """
    if isinstance(asked, str):
        layers = range(n_layers) if asked == ALL_HEADS else second_half(n_layers)
        return [(layer, head) for layer in layers for head in range(n_heads)]
    heads = sorted((layer, head) for layer, head in asked)
    for layer, head in heads:
        if layer >= n_layers or head >= n_heads:
            raise InputError(
                f"{name}: [{layer}, {head}] is not one of {n_layers} layers x {n_heads} heads, "
                "counted from 0"
            )
    return heads


def swept_note(asked: Asked, n_layers: int, n_heads: int) -> list[str]:
    """What a reader must know of a study that does not ablate every head; nothing of others."""
    number, every = len(swept_heads(asked, n_layers, n_heads)), n_layers * n_heads
    if number == every:
        return []
    which = (
        f"those of the {SECOND_HALF} of the layers"
        if isinstance(asked, str)
        else "those that the config names"
    )
    return [
        f"The sweeps ablated {number:,} of {every:,} heads, {which} (sweep.heads): nothing is measured of the"
        " others, nor the mean of a group of layers that has any of them."
    ]
