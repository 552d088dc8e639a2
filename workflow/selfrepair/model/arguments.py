"""What a layer is called with besides the residual stream: masks, positions, rotary tables.

It follows the number of rows and positions, never what the rows hold. So it is taken once from a pass
over one row and one over two rows of other tokens: whatever grows with the rows can be given for any
number of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

# Positional and keyword arguments.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class PerRow:
    """An argument that repeats along its first axis, once per row of the stream.

    ALiBi's biases of BLOOM, say, are [row x head, 1, position].
    """

    of_one: Tensor

    def of(self, rows: int) -> Tensor:
        if self.of_one.shape[0] == 1:
            return self.of_one.expand(rows, *self.of_one.shape[1:])
        return self.of_one.repeat(rows, *[1] * (self.of_one.ndim - 1))


def split_stream(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Any, Any]:
    """The residual stream that a module was called with, and the rest of its arguments."""
    if args:
        return args[0], args[1:], kwargs
    rest = dict(kwargs)
    return rest.pop("hidden_states"), (), rest


def for_any_rows(one: Arguments, two: Arguments) -> Arguments:
    """Arguments of one row and of two, as arguments of any number (`with_rows`).

    Raises:
        ValueError: they differ by more than their rows, and so depend on the tokens; says which do.
    """
    of_one, layout = tree_flatten(one)
    of_two, same = tree_flatten(two)
    if layout != same:
        raise ValueError("arguments that change with the tokens")
    return tree_unflatten(
        [_for_any_rows(*pair) for pair in zip(of_one, of_two, strict=True)], layout
    )


def _for_any_rows(one: Any, two: Any) -> Any:
    if not isinstance(one, Tensor) or (one.is_meta and one.shape == two.shape):
        return one
    if one.shape == two.shape and torch.equal(one, two):
        return one
    per_row = PerRow(one)
    grown = one.ndim > 0 and per_row.of(2).shape == two.shape
    if not grown or not (one.is_meta or torch.equal(per_row.of(2), two)):
        raise ValueError(f"a tensor of shape {list(one.shape)} that changes with the tokens")
    return per_row


def with_rows(arguments: Arguments, rows: int) -> Arguments:
    """What a layer is called with on a stream of so many rows."""
    return tree_map(lambda value: value.of(rows) if isinstance(value, PerRow) else value, arguments)
