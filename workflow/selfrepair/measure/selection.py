"""Which heads and which tokens an experiment looks at (docs/method.md sections 4 and 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import InputError
from ..vocabulary import TOP_SHARE, Head, second_half


def top_tokens(
    direct_effect: Float[Tensor, "token head"], *, share: float = TOP_SHARE
) -> Int[Tensor, "top head"]:
    """Each head's top tokens: the floor(share N) positions with the largest clean DE (section 4).

    Ties go to the earlier token, so that a sample has one answer on every device.
    Raises:
        InputError: the sample is too small to have a top token.
    """
    return largest_first(direct_effect, top_count(len(direct_effect), share=share))[1]


def top_count(tokens: int, *, share: float = TOP_SHARE) -> int:
    """How many top tokens a head has of so many tokens (InputError: none)."""
    count = math.floor(share * tokens + 1e-9)
    if count < 1:
        raise InputError(
            f"{tokens} tokens have no top {share:.0%}; take at least {math.ceil(1 / share)} tokens"
        )
    return count


def largest_first(
    direct_effect: Float[Tensor, "token head"], count: int
) -> tuple[Float[Tensor, "count head"], Int[Tensor, "count head"]]:
    """Each head's `count` largest direct effects and their tokens; ties go to the earlier token, and what
    is not a number comes last."""
    values, order = torch.sort(
        direct_effect.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf),
        dim=0,
        descending=True,
        stable=True,
    )
    return values[:count].clone(), order[:count].clone()


def choose_heads(
    mean_direct_effect: Float[Tensor, "layer head"],
    count: int,
    *,
    first_layer: int,
    last_layer: int,
) -> list[Head]:
    """The (layer, head) pairs with the largest mean clean direct effect, largest first.

    Candidates are the heads from first_layer to last_layer, both included (docs/method.md section 5).
    Fewer candidates than `count` are all chosen.
    """
    means = mean_direct_effect[first_layer : last_layer + 1]
    order = means.flatten().argsort(descending=True, stable=True)[:count]
    n_heads = means.shape[1]
    return [(first_layer + int(i) // n_heads, int(i) % n_heads) for i in order]


def layer_indices(layers: Sequence[int], n_layers: int, *, name: str) -> list[int]:
    """Layers counted from 0; negative ones count from the end (InputError: no such layer, or none)."""
    if not layers:
        raise InputError(f"{name}: none given; name at least one layer, such as -1 for the last")
    for layer in layers:
        if not -n_layers <= layer < n_layers:
            raise InputError(
                f"{name}: {layer} is not one of {n_layers} layers (from 0, or from -1 for the last)"
            )
    return [layer % n_layers for layer in layers]


def watched_layers(mlps: Sequence[int], parallel: Sequence[bool]) -> tuple[list[int], int]:
    """The MLPs' layers counted from 0, and the last layer whose heads any of them can react to.

    Args:
        mlps: layers, negative ones counted from the end; parallel: per layer of the model, whether
            its MLP does not see its own attention (docs/method.md section 2).
    Raises:
        InputError: no such layer, or an MLP that no head of the second half comes before.
    """
    n_layers = len(parallel)
    layers = layer_indices(mlps, n_layers, name="experiments.mlps")
    last = max(layer - parallel[layer] for layer in layers)
    if last < second_half(n_layers)[0]:
        raise InputError(
            f"experiments.mlps: {list(mlps)} come before every head of the second half (layers "
            f"{second_half(n_layers)[0]} to {n_layers - 1}); name a later layer"
        )
    return layers, last


def check_heads(
    heads: Sequence[Sequence[int]], n_layers: int, n_heads: int, *, name: str
) -> list[Head]:
    """Heads as pairs of integers, refused if the model has no such head (InputError)."""
    pairs = [(int(layer), int(head)) for layer, head in heads]
    for layer, head in pairs:
        if not (0 <= layer < n_layers and 0 <= head < n_heads):
            raise InputError(
                f"{name}: [{layer}, {head}] is not one of {n_layers} layers x {n_heads} heads, "
                "counted from 0"
            )
    return pairs
