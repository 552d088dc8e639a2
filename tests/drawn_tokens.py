"""Drawn tokens for tests: of every head, at random or given."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from selfrepair.measure.drawing import DrawnTokens
from selfrepair.measure.token_sweep import sweep_tokens
from selfrepair.model.decoder import Decoder

CLOSE = 1e-4  # of sums over some tokens, logits in float32; measured: 1.2e-5 (gemma2)


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


def assert_map_of(
    model: Decoder,
    expected: Float[Tensor, "prompt position layer head component"],
    tokens: Tensor,
    options: dict[str, Any],
    *,
    share: float = 0.3,
) -> None:
    """The map of drawn tokens is what a reference has of these, summed."""
    drawn = some_drawn(model, tokens, share=share)
    found = sweep_tokens(model, tokens, drawn, mapped=True, batch=3, chunk=5, **options)
    assert found.repair_map is not None
    changes = expected[index_of(drawn)].double() * drawn.top[:, None]
    sums = torch.zeros_like(found.repair_map.sums)
    sums.index_put_((drawn.layer, drawn.head), changes, accumulate=True)
    off = (found.repair_map.sums - sums).abs().flatten(0, 1).amax(0)
    assert float(off.max()) < CLOSE
    assert float(found.repair_map.map_error) < CLOSE
    per_prompt = torch.zeros(len(tokens), *sums.shape, dtype=torch.float64)
    per_prompt.index_put_((drawn.prompt, drawn.layer, drawn.head), changes, accumulate=True)
    squares = (per_prompt**2).sum(0)
    assert float((found.repair_map.squares - squares).abs().max()) < 20 * CLOSE
    assert float(sums.abs().mean()) > 0.01
