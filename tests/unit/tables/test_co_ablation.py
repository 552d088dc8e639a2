"""Tables of heads ablated together (E16) against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from documented import documented_columns
from selfrepair.measure.co_ablation import MEASURED, draw_pair_tokens, no_co_ablation
from selfrepair.tables.co_ablation import MEANS, co_ablation_tables
from selfrepair.tables.pairs import BACKUP, CONTROL

PAIRS = [
    {"first": [1, 0], "second": [3, 2], "kind": BACKUP},
    {"first": [2, 1], "second": [3, 0], "kind": BACKUP},
    {"first": [1, 0], "second": [3, 1], "kind": CONTROL},
    {"first": [2, 1], "second": [3, 2], "kind": CONTROL},
]
OPTIONS = {"n_prompts": 9, "model": "m", "seed": 0, "resamples": 1000}


def shard(prompts: range, *, seed: int) -> dict[str, torch.Tensor]:
    """Three instances of each pair in each of these prompts; of the last pair none."""
    draw = np.random.default_rng(seed)
    keys = np.array([(p, q, k) for q in range(3) for p in prompts for k in (1, 4, 7)]).T
    columns = {name: torch.from_numpy(keys[i]) for i, name in enumerate(("prompt", "pair"))}
    values = draw.normal(0, 1, (len(MEASURED), keys.shape[1]))
    # Backups gain, and lose it when they are ablated too.
    backup = keys[1] < 2
    values[MEASURED.index("second_change")] += backup
    values[MEASURED.index("delta_both")] -= backup
    return (
        columns
        | {"position": torch.from_numpy(keys[2])}
        | {n: torch.from_numpy(v) for n, v in zip(MEASURED, values, strict=True)}
    )


@pytest.fixture(scope="module")
def shards():
    return [shard(range(4), seed=1), shard(range(4, 9), seed=2)]


@pytest.fixture(scope="module")
def tables(shards):
    return co_ablation_tables(shards, PAIRS, **OPTIONS)


def rows_of(shards, pair: int) -> list[dict[str, float]]:
    return [
        {name: float(values[i]) for name, values in part.items()}
        for part in shards
        for i in range(len(part["pair"]))
        if int(part["pair"][i]) == pair
    ]


def excess(row: dict[str, float]) -> float:
    return row["delta_both"] - row["delta_first"] - row["delta_second"]


def test_a_row_has_the_means_of_its_pair(shards, tables):
    table, _ = tables
    assert table["kind"].to_list() == [BACKUP, BACKUP, CONTROL]  # the last pair has no token
    for index, row in enumerate(table.to_dicts()):
        found = rows_of(shards, index)
        assert [row["layer"], row["head"]] == PAIRS[index]["first"]
        assert [row["second_layer"], row["second_head"]] == PAIRS[index]["second"]
        assert (row["n_tokens"], row["n_prompts"]) == (27, 9)
        for name in MEANS:
            values = [excess(r) if name == "excess" else r[name] for r in found]
            assert row[name] == pytest.approx(np.mean(values))
            assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]


def test_summaries_are_means_over_pairs_and_a_ratio_of_sums(shards, tables):
    _, summaries = tables
    values = {
        (row["quantity"], row["group"]): row
        for row in summaries.filter(experiment="E16").to_dicts()
    }
    means = [np.mean([excess(r) for r in rows_of(shards, index)]) for index in range(3)]
    assert values["excess", BACKUP]["value"] == pytest.approx(np.mean(means[:2]))
    assert values["excess", CONTROL]["value"] == pytest.approx(means[2])
    difference = values["excess_difference", "backup - control"]
    assert difference["value"] == pytest.approx(np.mean(means[:2]) - means[2])
    assert difference["low"] < difference["value"] < difference["high"] < 0
    backups = rows_of(shards, 0) + rows_of(shards, 1)
    lost = -sum(map(excess, backups)) / sum(r["second_change"] for r in backups)
    assert values["share_lost", BACKUP]["value"] == pytest.approx(lost)
    assert values["share_lost", BACKUP]["n_tokens"] == 54
    assert len(values) == 4


def test_without_controls_there_is_no_difference(shards):
    few = [{name: v[part["pair"] < 2] for name, v in part.items()} for part in shards]
    table, summaries = co_ablation_tables(few, PAIRS[:2], **OPTIONS)
    assert table.height == 2
    assert summaries["quantity"].to_list() == ["excess", "share_lost"]


@pytest.mark.parametrize("pairs", [[], PAIRS])
def test_without_an_instance_the_tables_have_no_row(pairs, tables):
    empty, summaries = co_ablation_tables([no_co_ablation()], pairs, **OPTIONS)
    assert empty.is_empty()
    assert summaries.is_empty()
    for found, full in zip((empty, summaries), tables, strict=True):
        assert found.schema == full.schema


def test_columns_are_documented(tables):
    table, _ = tables
    assert documented_columns("co_ablation") == set(table.columns)


# --- the tokens --------------------------------------------------------------------------------


def drawn(tokens_per_pair: int | None, prompts: range) -> torch.Tensor:
    positions = 10
    top = torch.randperm(12 * positions, generator=torch.Generator().manual_seed(0))
    top_token = top[: 2 * 2 * 20].reshape(2, 2, 20)
    pairs = [((0, 1), (1, 0)), ((0, 0), (1, 1)), ((0, 1), (1, 1))]
    mask = draw_pair_tokens(
        top_token,
        pairs,
        positions=positions,
        prompts=prompts,
        tokens_per_pair=tokens_per_pair,
        seed=0,
    )
    for index, ((layer, head), _) in enumerate(pairs):
        expected = torch.zeros(12, positions, dtype=torch.bool)
        expected.view(-1)[top_token[layer, head]] = True
        inside = expected[prompts.start : prompts.stop]
        assert not (mask[..., index] & ~inside).any()
        count = int(inside.sum())
        wanted = count if tokens_per_pair is None else min(count, tokens_per_pair)
        assert int(mask[..., index].sum()) == wanted > 0
    return mask


@pytest.mark.parametrize("prompts", [range(12), range(7, 12), range(4, 9)])
@pytest.mark.parametrize("tokens", [None, 3, 1000])
def test_tokens_are_top_tokens_of_the_first_head_in_the_prompts(tokens, prompts):
    mask = drawn(tokens, prompts)
    assert mask.shape == (len(prompts), 10, 3)
    # Pairs with one first head share them.
    assert torch.equal(mask[..., 0], mask[..., 2])


def test_no_pairs_have_no_tokens():
    mask = draw_pair_tokens(
        torch.zeros(2, 2, 3, dtype=torch.int64),
        [],
        positions=5,
        prompts=range(2, 4),
        tokens_per_pair=None,
        seed=0,
    )
    assert mask.shape == (2, 5, 0)
