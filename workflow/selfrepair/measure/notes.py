"""What a reader must know of a model to read its numbers: short sentences, shown wherever they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..model.decoder import Decoder
from ..vocabulary import NO_NEURONS


def model_notes(clean: Mapping[str, Any], *, weights: str | None) -> list[str]:
    """All notes on a model, from the sidecar of its clean pass and what the config says of its weights."""
    return [
        *([f"Weights: {weights}."] if weights else []),
        *(f"Warning: {line}." for line in clean["warnings"]),
        *clean["notes"],
        *neuron_notes(clean["neuron_layers"]),
    ]


def notes_about(model: Decoder) -> list[str]:
    """What holds for every number of a model; none for most models."""
    if model.logit_softcap is None:
        return []
    return [
        f"The model caps its logits softly at {model.logit_softcap:g}; everything is measured on the"
        " logits before the cap."
    ]


def neuron_layers(model: Decoder) -> list[bool]:
    """Per layer, whether the neurons of its MLP can be measured: not those of a mixture of experts."""
    return [layer.neurons is not None for layer in model.layers]


def neuron_notes(measurable: Sequence[bool]) -> list[str]:
    """What is left out of the neuron experiments (E7 to E10); none if nothing is.

    measurable: of `neuron_layers`.
    """
    left_out = [layer for layer, some in enumerate(measurable) if not some]
    if not left_out:
        return []
    if len(left_out) == len(measurable):
        return [f"E7 to E10 are not measured: {NO_NEURONS}."]
    which = f"the MLP{'s' * (len(left_out) > 1)} of layer{'s' * (len(left_out) > 1)}"
    has = "have" if len(left_out) > 1 else "has"
    return [
        f"E7 to E10 are not measured if they look at {which} {', '.join(map(str, left_out))}, which {has}"
        " no single output projection to read neurons from, as in a mixture of experts."
    ]
