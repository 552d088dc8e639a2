"""Tables of single tokens (E3, E4) against plain loops."""

import numpy as np
import polars as pl
import pytest
import torch

from selfrepair.errors import InputError
from selfrepair.tables.tokens import regions, scale_table, token_table
from selfrepair.vocabulary import TOKEN_EFFECTS, TOKEN_REGIONS

OPTIONS = {"n_prompts": 8, "model": "m", "seed": 0, "resamples": 1000}
HEADS = [(4, 1), (3, 0)]


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


def drawn_shard(prompts, *, seed):
    """Instances of both heads by prompt and head: three drawn from top tokens, one of them and two more
    from all tokens."""
    draw = np.random.default_rng(seed)
    rows = []
    for prompt in prompts:
        for place in range(len(HEADS)):
            positions = np.sort(draw.choice(25, 5, replace=False))
            kinds = draw.permutation([(1, 0), (1, 0), (1, 1), (0, 1), (0, 1)])
            rows += [(prompt, k, place, *kind) for k, kind in zip(positions, kinds, strict=True)]
    columns = np.array(rows).T
    shard = {
        n: torch.from_numpy(columns[i]).int() for i, n in enumerate(("prompt", "position", "head"))
    }
    shard |= {n: torch.from_numpy(columns[3 + i]).byte() for i, n in enumerate(("top", "random"))}
    return shard | {n: normal(len(rows), seed=seed + i) for i, n in enumerate(TOKEN_EFFECTS)}


@pytest.fixture(scope="module")
def shards():
    return [drawn_shard([0, 1, 2], seed=0), drawn_shard([5, 6], seed=9)]


def instances(shards):
    """Every instance as a dictionary of numbers."""
    for shard in shards:
        columns = zip(*(values.tolist() for values in shard.values()), strict=True)
        yield from (dict(zip(shard, row, strict=True)) for row in columns)


def region_of(one):
    return TOKEN_REGIONS[
        regions(np.array([one["direct_effect"]]), np.array([one["delta_logit"]]))[0]
    ]


def test_every_drawn_top_token_is_a_row_and_no_other(shards):
    tokens, _ = token_table(shards, HEADS, **OPTIONS)
    expected = [one for one in instances(shards) if one["top"]]
    expected.sort(key=lambda one: (one["head"], one["prompt"], one["position"]))
    assert tokens.height == len(expected) == 3 * 2 * 5
    for row, one in zip(tokens.iter_rows(named=True), expected, strict=True):
        assert (row["layer"], row["head"]) == HEADS[one["head"]]
        assert row["region"] == region_of(one)
        for name in ("prompt", "position", *TOKEN_EFFECTS):
            assert row[name] == pytest.approx(one[name])


@pytest.mark.parametrize(("selection", "flag"), [("top", "top"), ("all", "random")])
def test_regions_are_counted_on_what_was_drawn_from_each_selection(shards, selection, flag):
    _, shares = token_table(shards, HEADS, **OPTIONS)
    for place, (layer, head) in enumerate(HEADS):
        drawn = [one for one in instances(shards) if one["head"] == place and one[flag]]
        rows = shares.filter(layer=layer, head=head).filter(
            pl.col("group").str.starts_with(selection)
        )
        assert rows["group"].to_list() == [f"{selection}/{region}" for region in TOKEN_REGIONS]
        counts = [sum(region_of(one) == region for one in drawn) for region in TOKEN_REGIONS]
        assert rows["value"].to_list() == pytest.approx([count / 15 for count in counts])
        assert set(rows.select("n_tokens", "n_prompts").rows()) == {(15, 5)}
        assert (rows["low"] <= rows["value"]).all()
        assert (rows["value"] <= rows["high"]).all()


def scale_shards(shards):
    """The top tokens alone, with S / S' under two ablations."""
    found = []
    for seed, shard in enumerate(shards):
        top = shard["top"] > 0
        kept = {name: shard[name][top] for name in ("prompt", "position", "head", "direct_effect")}
        kept["ratio.resample"] = 1 + 0.1 * normal(int(top.sum()), seed=seed)
        found.append(kept | {"ratio.zero": torch.full((int(top.sum()),), 1.5)})
    return found


def test_scale_ratios_are_kept_per_ablation_and_their_share_above_one(shards):
    scales = scale_shards(shards)
    table, shares = scale_table(scales, HEADS, **OPTIONS)
    assert table.group_by("ablation").len()["len"].to_list() == [30, 30]
    of_head = [one for one in instances(scales) if one["head"] == 0]
    kept = table.filter(ablation="resample", layer=4, head=1)
    for name in ("prompt", "position", "direct_effect"):
        assert kept[name].to_list() == [one[name] for one in of_head]
    assert kept["ratio"].to_list() == pytest.approx([one["ratio.resample"] for one in of_head])
    row = shares.filter(group="resample", layer=4, head=1).row(0, named=True)
    assert row["value"] == pytest.approx(np.mean([one["ratio.resample"] > 1 for one in of_head]))
    assert (row["n_tokens"], row["n_prompts"]) == (15, 5)
    zero = shares.filter(group="zero")
    assert zero["value"].to_list() == [1.0, 1.0, 1.0]
    assert zero["layer"].to_list() == [4, 3, None]
    places = {(one["prompt"], one["position"]) for one in instances(scales)}
    assert zero["n_tokens"].to_list() == [15, 15, len(places)]  # a token of both heads counts once


def test_a_head_without_a_drawn_token_is_missing_and_not_zero(shards):
    only = [{n: v[shard["head"] == 0] for n, v in shard.items()} for shard in shards]
    tokens, shares = token_table(only, HEADS, **OPTIONS)
    assert tokens["layer"].unique().to_list() == [4]
    assert shares.filter(layer=3)["value"].is_nan().all()
    assert set(shares.filter(layer=3)["n_tokens"]) == {0}
    _, above = scale_table(scale_shards(only), HEADS, **OPTIONS)
    assert above.filter(layer=3)["value"].is_nan().all()
    columns = ("value", "low", "high", "n_prompts", "n_tokens")
    over_heads = above.filter(pl.col("layer").is_null()).select(columns)
    assert over_heads.equals(above.filter(layer=4).select(columns))


def test_prompts_without_a_top_token_of_any_head_are_refused(shards):
    none = [{n: v[shard["top"] == 0] for n, v in shard.items()} for shard in shards]
    for table, of in ((token_table, none), (scale_table, scale_shards(none))):
        with pytest.raises(
            InputError, match=r"chosen heads: none of their top tokens .* raise exp"
        ):
            table(of, HEADS, **OPTIONS)


def test_a_share_of_tokens_in_one_prompt_has_no_interval(shards):
    one = [{n: v[shard["prompt"] == 5] for n, v in shard.items()} for shard in shards]
    _, shares = token_table(one, HEADS, **OPTIONS)
    assert set(shares["n_prompts"]) == {1}
    assert not shares["value"].is_nan().any()
    assert shares["low"].is_nan().all()
    assert shares["high"].is_nan().all()
