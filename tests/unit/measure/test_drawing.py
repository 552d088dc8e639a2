"""Tokens drawn at random for each head: uniform, without repetition, and by nothing but the seed."""

import numpy as np
import polars as pl
import pytest
import torch

from selfrepair import InputError
from selfrepair.measure.drawing import DrawnTokens, draw_tokens

POSITIONS, PROMPTS, LAYERS, HEADS, TOP = 10, 30, 2, 3, 25


def top_of(prompts: int = PROMPTS) -> torch.Tensor:
    """Some top tokens of each head, never at the first position, in no order."""
    generator = np.random.default_rng(7)
    allowed = np.arange(prompts * POSITIONS).reshape(prompts, POSITIONS)[:, 1:].ravel()
    rows = [generator.choice(allowed, TOP, replace=False) for _ in range(LAYERS * HEADS)]
    return torch.from_numpy(np.stack(rows)).reshape(LAYERS, HEADS, TOP).int()


def draw(**changes: object) -> DrawnTokens:
    options = {
        "positions": POSITIONS,
        "prompts": PROMPTS,
        "tokens_per_head": 6,
        "random_tokens_per_head": 4,
        "first_position": 1,
        "seed": 3,
    }
    return draw_tokens(top_of(), **(options | changes))


def keys(drawn: DrawnTokens) -> list[tuple[int, ...]]:
    return drawn.table().rows()


def test_each_head_gets_as_many_tokens_as_asked_and_none_twice():
    table = draw().table()
    places = ["prompt", "layer", "head", "position"]
    assert table.select(places).rows() == sorted(set(table.select(places).rows()))
    counts = table.group_by("layer", "head").agg(pl.col("top").sum(), pl.col("random").sum())
    assert len(counts) == LAYERS * HEADS
    assert set(counts["top"]) == {6}
    assert set(counts["random"]) == {4}
    assert table["position"].min() == 1
    top = top_of()
    for prompt, position, layer, head, is_top, _ in table.rows():
        if is_top:
            assert prompt * POSITIONS + position in top[layer, head]


def test_a_draw_depends_on_the_seed_and_the_head_alone():
    whole = draw()
    assert keys(whole) == keys(draw())
    assert keys(whole) != keys(draw(seed=4))
    some = draw(heads=[(1, 2), (0, 1)])
    mine = (whole.layer == 1) & (whole.head == 2) | (whole.layer == 0) & (whole.head == 1)
    assert keys(some) == keys(whole.where(mine))
    without = draw(random_tokens_per_head=0)
    assert keys(without) == [(*k[:5], False) for k in keys(whole) if k[4]]
    in_any_order = top_of().flip(-1)
    again = draw_tokens(
        in_any_order, positions=POSITIONS, prompts=PROMPTS, tokens_per_head=6,
        random_tokens_per_head=4, first_position=1, seed=3,
    )  # fmt: skip
    assert keys(again) == keys(whole)


def test_only_the_first_prompts_are_drawn_from_and_a_head_without_top_tokens_there_gets_none():
    top = top_of()
    top[0, 0] = torch.arange(TOP) + (PROMPTS - 4) * POSITIONS
    drawn = draw_tokens(
        top, positions=POSITIONS, prompts=5, tokens_per_head=None, random_tokens_per_head=0,
        first_position=1, seed=0,
    )  # fmt: skip
    assert int(drawn.prompt.max()) == 4
    assert not ((drawn.layer == 0) & (drawn.head == 0)).any()
    for layer in range(LAYERS):
        for head in range(HEADS):
            mine = drawn.where((drawn.layer == layer) & (drawn.head == head))
            inside = top[layer, head][top[layer, head] < 5 * POSITIONS].sort().values
            assert torch.equal(mine.prompt * POSITIONS + mine.position, inside)
    more = draw_tokens(
        top, positions=POSITIONS, prompts=5, tokens_per_head=99, random_tokens_per_head=0,
        first_position=1, seed=0,
    )  # fmt: skip
    assert keys(more) == keys(drawn)


def test_a_token_drawn_both_ways_is_one_instance():
    drawn = draw(tokens_per_head=None, random_tokens_per_head=PROMPTS * POSITIONS)
    assert len(drawn) == LAYERS * HEADS * PROMPTS * (POSITIONS - 1)
    assert bool(drawn.random.all())
    assert int(drawn.top.sum()) == LAYERS * HEADS * TOP


def test_every_token_is_drawn_equally_often():
    """The mean over draws is the mean over the pool: an unbiased estimate."""
    draws, top, every = 3000, np.zeros(PROMPTS * POSITIONS), np.zeros(PROMPTS * POSITIONS)
    for seed in range(draws):
        drawn = draw(seed=seed, heads=[(1, 0)])
        token = (drawn.prompt * POSITIONS + drawn.position).numpy()
        top[token[drawn.top.numpy()]] += 1
        every[token[drawn.random.numpy()]] += 1
    pool = top_of()[1, 0].numpy()
    assert top.sum() == top[pool].sum() == 6 * draws
    allowed = np.arange(PROMPTS * POSITIONS) % POSITIONS > 0
    assert every[~allowed].sum() == 0
    for counts, share in ((top[pool], 6 / TOP), (every[allowed], 4 / allowed.sum())):
        deviation = np.sqrt(draws * share * (1 - share))
        assert np.abs(counts - draws * share).max() < 5 * deviation


def test_top_and_random_draws_of_two_heads_are_not_alike():
    """One stream for all would give every head the same places."""
    top = top_of()[:1, :1].expand(LAYERS, HEADS, TOP)
    drawn = draw_tokens(
        top, positions=POSITIONS, prompts=PROMPTS, tokens_per_head=6, random_tokens_per_head=6,
        first_position=0, seed=1,
    )  # fmt: skip
    found = set()
    for layer in range(LAYERS):
        for head in range(HEADS):
            mine = drawn.where((drawn.layer == layer) & (drawn.head == head))
            found |= {tuple(mine.where(flag).prompt.tolist()) for flag in (mine.top, mine.random)}
    assert len(found) == 2 * LAYERS * HEADS


def test_the_mask_of_some_heads_holds_their_top_tokens():
    drawn = draw()
    mask = drawn.mask([(1, 2), (0, 1)], prompts=PROMPTS, positions=POSITIONS)
    assert mask.shape == (PROMPTS, POSITIONS, 2)
    assert mask.flatten(0, 1).sum(0).tolist() == [6, 6]
    mine = drawn.where(drawn.top & (drawn.layer == 0) & (drawn.head == 1))
    assert bool(mask[mine.prompt, mine.position, 1].all())
    part = drawn.in_prompts(range(10, 20)).mask([(0, 1)], prompts=10, positions=POSITIONS)
    assert torch.equal(part[..., 0], mask[10:20, :, 1])


def test_the_table_keeps_everything():
    drawn = draw()
    again = DrawnTokens.from_table(drawn.table())
    assert keys(again) == keys(drawn)
    assert len(drawn.where(torch.zeros(len(drawn), dtype=torch.bool)).table()) == 0


@pytest.mark.parametrize(
    ("name", "value"), [("prompts", 0), ("tokens_per_head", 0), ("random_tokens_per_head", -1)]
)
def test_draws_of_nothing_are_refused(name: str, value: int):
    with pytest.raises(InputError, match=rf"^{name}: {value}; take at least"):
        draw(**{name: value})
