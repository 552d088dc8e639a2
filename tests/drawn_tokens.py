"""Drawn tokens for tests: of every head, at random or given."""

import torch
from torch import Tensor

from selfrepair.measure.drawing import DrawnTokens
from selfrepair.model.decoder import Decoder


def drawn_at(places: Tensor, *, top: Tensor | None = None) -> DrawnTokens:
    """Instances at places, [instance, (prompt, position, layer, head)]; all of them top unless said."""
    every = torch.ones(len(places), dtype=torch.bool)
    return DrawnTokens(*places.T, top=every if top is None else top, random=every)


def every_token(model: Decoder, tokens: Tensor) -> DrawnTokens:
    """Every head at every position."""
    shape = (len(tokens), tokens.shape[1] - 1, model.n_layers, model.n_heads)
    return drawn_at(torch.ones(shape).nonzero())


def some_drawn(model: Decoder, tokens: Tensor, *, share: float, seed: int = 5) -> DrawnTokens:
    """A share of all, in an order of their own; two thirds of them top; none of prompt 2."""
    every = every_token(model, tokens)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(every), generator=generator)[: round(share * len(every))]
    places = torch.stack([every.prompt, every.position, every.layer, every.head], 1)[order]
    places = places[places[:, 0] != 2]
    return drawn_at(places, top=torch.rand(len(places), generator=generator) < 2 / 3)


def index_of(drawn: DrawnTokens) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where the instances are in [prompt, position, layer, head]."""
    return drawn.prompt, drawn.position, drawn.layer, drawn.head
