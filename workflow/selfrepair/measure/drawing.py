"""Tokens drawn at random for each head: which (head, token) pairs a sweep measures (docs/method.md section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class DrawnTokens:
    """Instances (a head on one of its tokens), a row each, sorted by prompt, layer, head and position.

    prompt, position: of the token, counted from 0; layer, head: of the head that is ablated; top: the
    token was drawn from the head's top tokens; random: it was drawn from all tokens. Both may be true.
    """

    prompt: Int[Tensor, " instance"]
    position: Int[Tensor, " instance"]
    layer: Int[Tensor, " instance"]
    head: Int[Tensor, " instance"]
    top: Bool[Tensor, " instance"]
    random: Bool[Tensor, " instance"]

    def __len__(self) -> int:
        return len(self.prompt)

    def where(self, wanted: Bool[Tensor, " instance"]) -> DrawnTokens:
        """The instances that are wanted."""
        return DrawnTokens(
            self.prompt[wanted],
            self.position[wanted],
            self.layer[wanted],
            self.head[wanted],
            self.top[wanted],
            self.random[wanted],
        )

    def in_prompts(self, rows: range) -> DrawnTokens:
        """The instances in consecutive prompts, which are then counted from 0."""
        inside = self.where((self.prompt >= rows.start) & (self.prompt < rows.stop))
        return DrawnTokens(
            inside.prompt - rows.start,
            inside.position,
            inside.layer,
            inside.head,
            inside.top,
            inside.random,
        )

    def table(self) -> pl.DataFrame:
        """A row per instance: prompt, position, layer, head, top, random."""
        places = ("prompt", "position", "layer", "head")
        columns = {n: pl.Series(getattr(self, n).numpy(), dtype=pl.Int32) for n in places}
        flags = {n: pl.Series(getattr(self, n).numpy()) for n in ("top", "random")}
        return pl.DataFrame(columns | flags)

    @classmethod
    def from_table(cls, table: pl.DataFrame) -> DrawnTokens:
        """The instances of a table that `table` wrote."""
        places = ("prompt", "position", "layer", "head")
        columns = {n: torch.from_numpy(table[n].to_numpy(writable=True)).long() for n in places}
        flags = {n: torch.from_numpy(table[n].to_numpy(writable=True)) for n in ("top", "random")}
        return cls(**columns, **flags)
