"""Tables of single tokens (E3, E4) against plain loops."""

import numpy as np
import polars as pl
import pytest
import torch

from selfrepair.measure.selection import top_mask
from selfrepair.tables.tokens import regions, scale_table, token_table
from selfrepair.vocabulary import TOKEN_REGIONS

OPTIONS = {"model": "m", "seed": 0, "resamples": 1000}
HEADS = [(4, 1), (3, 0)]
SHAPE = (6, 25, 2)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("effect", "change", "region"),
    [
        (2.0, -2.1, "breakage"),
        (2.0, -2.0, "under-repair"),
        (2.0, -1.01, "under-repair"),
        (2.0, -1.0, "repair"),
        (2.0, 0.0, "repair"),
        (2.0, 0.1, "over-correction"),
        (-2.0, 2.1, "breakage"),  # a head that lowers the logit: the same with all signs turned
        (-2.0, 0.5, "repair"),
        (-2.0, -0.1, "over-correction"),
        (0.0, 0.0, "repair"),  # nothing lost, nothing changed
    ],
)
def test_regions_lie_between_their_lines(effect, change, region):
    assert TOKEN_REGIONS[regions(np.array([effect]), np.array([change]))[0]] == region


@pytest.fixture(scope="module")
def arrays():
    names = ("direct_effect", "ablated_direct_effect", "delta_logit", "self_repair")
    return {name: normal(*SHAPE, seed=i) for i, name in enumerate(names)}


def test_every_top_token_is_a_row_and_regions_are_counted(arrays):
    tokens, shares = token_table(arrays, HEADS, **OPTIONS)
    top = top_mask(arrays["direct_effect"])
    assert tokens.height == int(top.sum()) == 6
    for row in tokens.iter_rows(named=True):
        index = HEADS.index((row["layer"], row["head"]))
        at = (row["prompt"], row["position"], index)
        assert top[at]
        for name, values in arrays.items():
            assert row[name] == pytest.approx(float(values[at]))
    every = shares.filter(layer=3, head=0).filter(pl.col("group").str.starts_with("all/"))
    assert every["group"].to_list() == [f"all/{region}" for region in TOKEN_REGIONS]
    assert every["value"].sum() == pytest.approx(1.0)
    assert set(every["n_tokens"]) == {150}
    over = (1 + arrays["delta_logit"][..., 1] / arrays["direct_effect"][..., 1]) > 1
    assert every["value"][3] == pytest.approx(float(over.float().mean()))
    assert (shares["low"] <= shares["value"]).all()
    assert (shares["value"] <= shares["high"]).all()


def test_scale_ratios_are_kept_per_ablation_and_their_share_above_one(arrays):
    effect = arrays["direct_effect"]
    ratios = {"resample": 1 + 0.1 * normal(*SHAPE, seed=7), "zero": torch.full(SHAPE, 1.5)}
    table, shares = scale_table(ratios, effect, HEADS, **OPTIONS)
    assert table.group_by("ablation").len()["len"].to_list() == [6, 6]
    top = top_mask(effect)
    expected = (ratios["resample"] > 1)[..., 0][top[..., 0]].float().mean()
    row = shares.filter(group="resample", layer=4, head=1).row(0, named=True)
    assert row["value"] == pytest.approx(float(expected))
    assert shares.filter(group="zero")["value"].to_list() == [1.0, 1.0, 1.0]
    assert shares.filter(group="zero")["layer"].to_list() == [4, 3, None]
    kept = table.filter(ablation="resample", layer=4, head=1)["ratio"].sort()
    assert np.allclose(kept, ratios["resample"][..., 0][top[..., 0]].sort().values)


def test_tokens_before_the_first_position_are_in_no_table(arrays):
    """As if the sample had not had them, but positions keep their number."""
    longer = {name: torch.cat([v[:, :1] + 50, v], 1) for name, v in arrays.items()}
    tokens, shares = token_table(longer, HEADS, **OPTIONS, first_position=1)
    expected, expected_shares = token_table(arrays, HEADS, **OPTIONS)
    assert tokens.equals(expected.with_columns(pl.col("position") + 1))
    assert shares.equals(expected_shares)
    ratios = {"zero": longer["delta_logit"]}
    scales, _ = scale_table(ratios, longer["direct_effect"], HEADS, **OPTIONS, first_position=1)
    assert scales.height == 6
    assert (scales["position"] > 0).all()
