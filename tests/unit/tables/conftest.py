"""A sweep of made-up numbers, and its tables."""

import pytest
import torch

from selfrepair.tables.heads import head_tables
from selfrepair.vocabulary import EFFECTS

PROMPTS, POSITIONS, LAYERS, HEADS = 6, 25, 5, 2


@pytest.fixture(scope="session")
def sweep():
    """EFFECTS by name, [prompt, position, layer, head]."""
    generator = torch.Generator().manual_seed(0)
    shape = (PROMPTS, POSITIONS, LAYERS, HEADS)
    arrays = {name: torch.randn(shape, generator=generator) for name in EFFECTS}
    arrays["direct_effect"] += 0.5
    return arrays


@pytest.fixture(scope="session")
def by_layer():
    """From arrays with a layer axis to one mapping per layer, as a sweep is read."""

    def split(arrays):
        n_layers = arrays["direct_effect"].shape[2]
        return [{name: v[:, :, layer] for name, v in arrays.items()} for layer in range(n_layers)]

    return split


@pytest.fixture(scope="session")
def tables(sweep, by_layer):
    """The tables of heads and by depth of two ablations that gave the same numbers."""
    layers = by_layer(sweep)
    return head_tables({"resample": layers, "zero": layers}, model="m", seed=0, resamples=200)
