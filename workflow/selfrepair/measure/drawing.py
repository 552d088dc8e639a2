"""Tokens drawn at random for each head: which (head, token) pairs a sweep measures (docs/method.md section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..errors import InputError
from ..vocabulary import Head

# What a head's tokens are drawn from: its top tokens, or all. Part of the seed of each draw.
_OF_TOP, _OF_ALL = 0, 1


# Where an instance is.
PLACES = ("prompt", "position", "layer", "head")


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
        return DrawnTokens(**{f.name: getattr(self, f.name)[wanted] for f in fields(self)})

    def lie_in(self, rows: range) -> Bool[Tensor, " instance"]:
        """Which instances lie in consecutive prompts."""
        return (self.prompt >= rows.start) & (self.prompt < rows.stop)

    def in_prompts(self, rows: range) -> DrawnTokens:
        """The instances in consecutive prompts, which are then counted from 0."""
        inside = self.where(self.lie_in(rows))
        return replace(inside, prompt=inside.prompt - rows.start)

    def mask(
        self, heads: Sequence[Head], *, prompts: int, positions: int
    ) -> Bool[Tensor, "prompt position head"]:
        """True where an instance of one of these heads was drawn from its top tokens, in the order of the
        heads given."""
        mask = torch.zeros(prompts, positions, len(heads), dtype=torch.bool)
        for at, (layer, head) in enumerate(heads):
            of_head = self.where(self.top & (self.layer == layer) & (self.head == head))
            mask[of_head.prompt, of_head.position, at] = True
        return mask

    def table(self) -> pl.DataFrame:
        """A row per instance: prompt, position, layer, head, top, random."""
        columns = {n: pl.Series(getattr(self, n).numpy(), dtype=pl.Int32) for n in PLACES}
        flags = {n: pl.Series(getattr(self, n).numpy()) for n in ("top", "random")}
        return pl.DataFrame(columns | flags)

    @classmethod
    def from_table(cls, table: pl.DataFrame) -> DrawnTokens:
        """The instances of a table that `table` wrote."""
        columns = {n: torch.from_numpy(table[n].to_numpy(writable=True)).long() for n in PLACES}
        flags = {n: torch.from_numpy(table[n].to_numpy(writable=True)) for n in ("top", "random")}
        return cls(**columns, **flags)


def draw_tokens(
    top_token: Int[Tensor, "layer head top"],
    *,
    positions: int,
    prompts: int,
    tokens_per_head: int | None,
    random_tokens_per_head: int,
    first_position: int,
    seed: int,
    heads: Sequence[Head] | None = None,
) -> DrawnTokens:
    """Draw tokens of each head uniformly and without replacement: of its top tokens, and of all tokens.

    What is drawn of a head depends on the seed, the head and the tokens that there are, on nothing else: not
    on the other heads, nor on shards, batches or the device.

    Args:
        top_token: each head's top tokens in the ranking sample, prompt * positions + position.
        positions: measured ones of a prompt; prompts: only the first so many of the sample are drawn from.
        tokens_per_head: of the top tokens in these prompts, or all of them where there are fewer; None:
            all of them. A head that has none there gets none.
        random_tokens_per_head: of all positions of these prompts from first_position on, or all of them
            where there are fewer. A token may be drawn both ways: it is one instance then.
        heads: the (layer, head) pairs to draw for; by default all.
    Raises:
        InputError: fewer than one prompt or top token a head, or fewer than no random tokens.
    """
    least = {"prompts": 1, "tokens_per_head": 1, "random_tokens_per_head": 0}
    asked = (prompts, tokens_per_head, random_tokens_per_head)
    for (name, low), value in zip(least.items(), asked, strict=True):
        if value is not None and value < low:
            raise InputError(f"{name}: {value}; take at least {low}")
    if heads is None:
        heads = [(int(a), int(b)) for a, b in np.ndindex(*top_token.shape[:2])]
    columns = []
    for layer, head in heads:
        top = top_token[layer, head].numpy().astype(np.int64)
        pool = np.sort(top[top < prompts * positions])
        count = len(pool) if tokens_per_head is None else tokens_per_head
        of_top = pool[_drawn(len(pool), count, (seed, layer, head, _OF_TOP))]
        allowed = positions - first_position
        place = _drawn(prompts * allowed, random_tokens_per_head, (seed, layer, head, _OF_ALL))
        of_all = place // allowed * positions + place % allowed + first_position
        token = np.union1d(of_top, of_all)
        where = np.full_like(token, layer), np.full_like(token, head)
        columns.append((token, *where, np.isin(token, of_top), np.isin(token, of_all)))
    return _sorted_instances(columns, positions)


def _drawn(pool: int, count: int, key: tuple[int, int, int, int]) -> np.ndarray:
    """`count` different numbers below `pool`, or all; key: seed, layer, head and kind of the draw."""
    seed, *rest = key
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=rest))
    return generator.choice(pool, min(count, pool), replace=False, shuffle=False)


def _sorted_instances(columns: Sequence[tuple[np.ndarray, ...]], positions: int) -> DrawnTokens:
    """Instances by head (token, layer, head, top, random), as one table in its order."""
    token, layer, head, top, random = map(np.concatenate, zip(*columns, strict=True))
    prompt, position = token // positions, token % positions
    order = np.lexsort([position, head, layer, prompt])
    places = (
        torch.from_numpy(each[order]) for each in (prompt, position, layer, head, top, random)
    )
    return DrawnTokens(*places)
