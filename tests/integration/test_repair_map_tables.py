"""The tables of who repairs add up to the terms that the sweep measured on the same tokens."""

from collections.abc import Callable

import polars as pl
import pytest

import tiny_models
from drawn_tokens import some_drawn
from selfrepair.measure.token_sweep import sweep_tokens
from selfrepair.model.decoder import Decoder
from selfrepair.tables.repair_map import repair_layers_table, repair_map_table
from selfrepair.vocabulary import (
    ATTENTION_NORM,
    FINAL_NORM,
    HEAD,
    MLP,
    MLP_NORM,
    OTHER_HEADS,
)

KINDS = {
    "from_heads": (HEAD, OTHER_HEADS),
    "from_mlps": (MLP,),
    "from_post_norms": (ATTENTION_NORM, MLP_NORM),
    "from_norm": (FINAL_NORM,),
}


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "pythia"])
def test_rows_add_up_to_the_terms(name: str, tiny: Callable[..., Decoder]) -> None:
    model = tiny(name, "float64")
    tokens, donors = (tiny_models.random_tokens(5, 12, seed=seed) for seed in (1, 2))
    drawn = some_drawn(model, tokens, share=0.3)
    result = sweep_tokens(model, tokens, drawn, donors=donors, mapped=True)
    assert result.repair_map is not None
    arrays = result.repair_map.arrays()
    maps = {"resample": {key.removeprefix("map."): v.numpy() for key, v in arrays.items()}}
    table, layers = repair_map_table(maps, model="m"), repair_layers_table(maps, model="m")
    for layer in range(model.n_layers):
        repaired = []
        for head in range(model.n_heads):
            here = (drawn.layer == layer) & (drawn.head == head) & drawn.top
            rows = table.filter(layer=layer, head=head)
            repaired.append(0.0)
            for term, kinds in KINDS.items():
                want = float(getattr(result, term)[here].mean())
                got = rows.filter(pl.col("kind").is_in(kinds))["mean"].sum()
                assert got == pytest.approx(want, abs=1e-13)  # measured: 9e-16
                repaired[-1] += want
        total = layers.filter(layer=layer)["mean"].sum()
        assert total == pytest.approx(sum(repaired) / model.n_heads, abs=1e-13)
