"""Tables of iterative inference (E11) against plain loops."""

import numpy as np
import polars as pl
import pytest
import torch

from selfrepair.errors import InputError
from selfrepair.tables.iterative import refeeding_table, self_repression_table
from selfrepair.vocabulary import FED_BACK

OPTIONS = {"model": "m", "seed": 0, "resamples": 1000}
HEADS = [(4, 1), (3, 0)]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fed_back():
    """Two shards; the new direct effect is the old one times a factor per kind and scaling."""
    factors = torch.tensor([[0.8, 0.5], [1.1, 1.2], [0.9, 1.0]])
    shards = []
    for prompts in ([0, 1], [2, 4]):
        head = torch.tensor([0, 1]).repeat(len(prompts) * 3)
        prompt = torch.tensor(prompts).repeat_interleave(6)
        old = 1 + 0.1 * normal(len(head), seed=prompts[0])
        new = old[:, None, None] * factors
        new[head == 1] *= 1.5
        shards.append(
            {"head": head, "prompt": prompt, "position": prompt, "direct_effect": old}
            | {"new_direct_effect": new}
        )
    return shards, factors


def test_slopes_are_what_becomes_of_the_direct_effect():
    shards, factors = fed_back()
    table, summaries = self_repression_table(shards, HEADS, [1.0, 3.0], n_prompts=5, **OPTIONS)
    for head, scale in ((HEADS[0], 1.0), (HEADS[1], 1.5)):
        rows = table.filter(layer=head[0], head=head[1])
        for row in rows.iter_rows(named=True):
            factor = float(factors[FED_BACK.index(row["kind"]), [1.0, 3.0].index(row["scaling"])])
            assert row["slope"] == pytest.approx(factor * scale)
            assert row["slope_low"] == pytest.approx(row["slope_high"])  # exact for every prompt
            assert (row["n_tokens"], row["n_prompts"]) == (12, 4)
    value = dict(
        zip(
            zip(summaries["quantity"], summaries["group"], strict=True),
            summaries["value"],
            strict=True,
        )
    )
    assert value["mean_slope", "own x1"] == pytest.approx(0.8 * 1.25)
    assert value["repressing_share", "own x1"] == 0.5
    assert value["repressing_share", "random x3"] == 0
    assert value["slope_difference", "own - random x1"] == pytest.approx((0.8 - 1.1) * 1.25)
    assert value["slope_difference", "own - other x3"] == pytest.approx((0.5 - 1.0) * 1.25)


def test_a_kind_that_cannot_be_measured_is_missing_and_not_zero():
    shards, _ = fed_back()
    for shard in shards:
        shard["new_direct_effect"][:, 2] = torch.nan
    table, summaries = self_repression_table(shards, HEADS, [1.0, 3.0], n_prompts=5, **OPTIONS)
    assert table.filter(kind="other")["slope"].is_nan().all()
    assert summaries.filter(group="other x1")["value"].is_nan().all()
    assert not table.filter(kind="own")["slope"].is_nan().any()


def test_correlations_of_changes_are_pearsons_over_tokens():
    prompts, pairs, heads, tokens = 5, 2, 3, 40
    x = normal(prompts, pairs, heads, heads, tokens, seed=1).double()
    y = 0.6 * x + 0.8 * normal(prompts, pairs, heads, heads, tokens, seed=2).double() + 3
    x[:, 1] *= 5
    values = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], -1)
    sums = values.sum((2, 3, 4))
    per_prompt = torch.stack([sums, 2 * sums], 1)  # selection "all" has every token twice
    shards = [
        {"prompt_sums": per_prompt[:2], "pair_sums": values[:2, ..., :3].sum((0, 4))},
        {"prompt_sums": per_prompt[2:], "pair_sums": values[2:, ..., :3].sum((0, 4))},
    ]
    table, summaries = refeeding_table(shards, **OPTIONS)
    assert table.height == pairs * heads * heads
    row = table.filter(layer=1, head=2, next_head=0).row(0, named=True)
    assert row["refeed_change"] == pytest.approx(float(x[:, 1, 2, 0].mean()))
    assert row["ablation_change"] == pytest.approx(float(y[:, 1, 2, 0].mean()))
    assert (row["n_tokens"], row["n_prompts"]) == (prompts * tokens, prompts)
    for pair in range(pairs):
        expected = np.corrcoef(x[:, pair].flatten(), y[:, pair].flatten())[0, 1]
        row = summaries.filter(layer=pair, group="top").row(0, named=True)
        assert row["value"] == pytest.approx(expected)
        assert row["low"] < row["value"] < row["high"]
    covariances = [np.cov(x[:, p].flatten(), y[:, p].flatten(), ddof=0) for p in range(pairs)]
    total = sum(covariances)
    pooled = summaries.filter(pl.col("layer").is_null(), group="top")["value"].item()
    assert pooled == pytest.approx(total[0, 1] / np.sqrt(total[0, 0] * total[1, 1]))
    both = summaries.filter(pl.col("layer").is_null())["value"]
    assert both[0] == pytest.approx(both[1])


def test_no_instances_are_refused():
    shards, _ = fed_back()
    empty = [{name: values[:0] for name, values in shard.items()} for shard in shards]
    with pytest.raises(
        InputError, match=r"no head of the second half .* raise experiments.iterative_prompts"
    ):
        self_repression_table(empty, HEADS, [1.0, 3.0], n_prompts=5, **OPTIONS)


def test_a_correlation_rests_on_the_prompts_with_tokens():
    sums = torch.rand(5, 2, 2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sums[..., 0], sums[..., 3:5] = 3, 9
    sums[0, 0] = (
        0  # no top token of any head in the first prompt, and in the second of the first pair only
    )
    sums[1, 0, 1] = 0
    pairs = torch.ones(2, 1, 1, 3, dtype=torch.float64)
    table, summaries = refeeding_table([{"prompt_sums": sums, "pair_sums": pairs}], **OPTIONS)
    assert table["n_prompts"].to_list() == [4, 3]
    assert summaries.filter(group="top")["n_prompts"].to_list() == [4, 4, 3]
    assert summaries.filter(group="all")["n_prompts"].to_list() == [5, 5, 5]
