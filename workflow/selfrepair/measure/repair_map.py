"""Who repairs: sums of every component's change of direct effect, per ablated head (docs/method.md section 3).

Per prompt first, then over prompts, so that means over tokens and their intervals over prompts follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.decoder import Decoder
from ..vocabulary import components

PREFIX = "map."


@dataclass
class RepairMap:
    """Sums over the prompts of a sample, float64; layer and head say which head was ablated.

    s, of a prompt, is the sum over the head's mapped tokens in it of a component's change of direct
    effect, in logits; n is how many these are. The components are those of `vocabulary.components`, in
    that order: later heads and MLPs at the clean scales of post-norms and of the final norm; post-norms
    and the final norm, what their changed scales do.

    sums: of s; squares: of s squared; products: of s n; [layer, head, component]. tokens: of n;
    tokens_squared: of n squared; prompts: how many have n above 0; [layer, head].
    map_error: largest difference between a token's terms (from_heads, from_mlps, from_post_norms) and
    the sums of its components, in logits.
    """

    sums: Float[Tensor, "layer head component"]
    squares: Float[Tensor, "layer head component"]
    products: Float[Tensor, "layer head component"]
    tokens: Float[Tensor, "layer head"]
    tokens_squared: Float[Tensor, "layer head"]
    prompts: Float[Tensor, "layer head"]
    map_error: float = 0.0

    @classmethod
    def nothing(cls, model: Decoder) -> RepairMap:
        """The map of no token."""
        shape = (model.n_layers, model.n_heads)
        count = len(components(*shape, post_norms=model.has_post_norms))

        def zeros(*sizes: int) -> Tensor:
            return torch.zeros(*shape, *sizes, dtype=torch.float64)

        return cls(zeros(count), zeros(count), zeros(count), zeros(), zeros(), zeros())

    def add(
        self,
        layer: int,
        head: Int[Tensor, " row"],
        changes: Float[Tensor, "row component"],
        counts: Float[Tensor, " row"],
    ) -> None:
        """Add rows, an ablated head in a whole prompt each: its s of every component and its n."""
        n = counts[:, None]
        for total, values in (
            (self.sums, changes),
            (self.squares, changes * changes),
            (self.products, changes * n),
            (self.tokens, counts),
            (self.tokens_squared, counts * counts),
            (self.prompts, counts.sign()),
        ):
            total[layer].index_add_(0, head, values)

    def __add__(self, other: RepairMap) -> RepairMap:
        """The map of two sets of prompts that have none in common."""
        both = {name: value + other.arrays()[name] for name, value in self.arrays().items()}
        return RepairMap.from_arrays(both, map_error=max(self.map_error, other.map_error))

    def arrays(self) -> dict[str, Tensor]:
        """The tensors to store, by name."""
        names = [field.name for field in fields(self) if field.name != "map_error"]
        return {PREFIX + name: getattr(self, name) for name in names}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor], *, map_error: float = 0.0) -> RepairMap:
        """The map whose `arrays` are among these."""
        names = [field.name for field in fields(cls) if field.name != "map_error"]
        return cls(**{name: arrays[PREFIX + name] for name in names}, map_error=map_error)
