"""A sweep of made-up numbers, and its tables."""

import pytest
import torch

from selfrepair.measure.prompt_sums import GROUP_TOKENS, summed
from selfrepair.measure.sweep_result import SweepResult
from selfrepair.tables.heads import head_tables
from selfrepair.tables.swept import SummedHeads
from selfrepair.vocabulary import EFFECTS
from top_masks import top_of_every_head

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
def stored():
    """From EFFECTS to what is stored of a sweep over all tokens; without from_post_norms of a model
    without post-norms."""

    def store(arrays, *, top=None, first_position=0):
        direct = arrays["direct_effect"]
        if top is None:
            top = top_of_every_head(direct, first_position=first_position)
        zeros = torch.zeros_like(direct)
        result = SweepResult(
            **({"from_post_norms": zeros} | dict(arrays)),
            ablated_scale=zeros + 1,
            scale=zeros[..., 0, 0] + 1,
            conservation_error=0.0,
            decomposition_error=0.0,
            has_post_norms="from_post_norms" in arrays,
        )
        return summed(result, top, first_position=first_position)

    return store


@pytest.fixture(scope="session")
def read():
    """From what is stored to what the tables read, as `files.shards.SummedLayers` gives it."""

    def swept(tensors):
        places = {2: None, 3: 1, 4: 0}
        layers = [
            {
                name: values.select(places[values.dim()], layer)
                for name, values in tensors.items()
                if values.dim() > 2
            }
            for layer in range(tensors["all.tokens"].shape[1])
        ]
        groups = {name: v for name, v in tensors.items() if name.endswith(GROUP_TOKENS)}
        return SummedHeads(layers, groups)

    return swept


@pytest.fixture(scope="session")
def swept(sweep, stored, read):
    return read(stored(sweep))


@pytest.fixture(scope="session")
def tables(swept):
    """The tables of heads and by depth of two ablations that gave the same numbers."""
    return head_tables({"resample": swept, "zero": swept}, model="m", seed=0, resamples=200)
