"""Groups of neuron ranks and bins of direct effects, which make medians additive over shards (E8)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

GROUPS = 128
# Bins of a direct effect in logits: even in asinh(effect / SMALL), so about 3 % wide beyond SMALL and
# linear below it.
SMALL, LARGE, BINS = 1e-4, 30.0, 801


def _edges() -> Float[Tensor, " edge"]:
    reach = torch.tensor(LARGE / SMALL, dtype=torch.float64).asinh().item()
    return torch.linspace(-reach, reach, BINS - 1, dtype=torch.float64).sinh() * SMALL


EDGES = _edges()


def group_ends(n_neurons: int) -> Int[Tensor, " group"]:
    """The number of neurons up to the end of each group of ranks. There are at most GROUPS groups; their
    sizes differ by one at most."""
    groups = min(GROUPS, n_neurons)
    return torch.arange(1, groups + 1) * n_neurons // groups


def medians(counts: Int[Tensor, "*group bin"]) -> Float[Tensor, "*group"]:
    """Medians from counts in the bins between EDGES: the middle of the bin that holds it, in logits.

    Within 1.7 % of the exact median beyond SMALL, within 2e-6 logits below it; NaN without counts.
    The two open bins are taken for their edge.
    """
    reach = EDGES.div(SMALL).asinh()
    middle = (reach[:-1] + reach[1:]) / 2
    centres = torch.cat([EDGES[:1], middle.sinh() * SMALL, EDGES[-1:]])
    cumulative = counts.cumsum(-1)
    total = cumulative[..., -1:]
    place = (2 * cumulative < total).sum(-1)
    return torch.where(total[..., 0] > 0, centres[place.clamp(max=len(centres) - 1)], torch.nan)
