"""Prompts drawn at random for each head: uniform, without repetition, all of the head's top tokens in them."""

from itertools import combinations

import numpy as np
import pytest
import torch

from selfrepair import InputError
from selfrepair.measure.drawing import draw_tokens
from selfrepair.measure.prompt_draw import tokens_of_drawn_prompts

POSITIONS, PROMPTS, LAYERS, HEADS, TOP = 10, 12, 2, 3, 14
NOWHERE = 8 * POSITIONS  # of the first 8 prompts


def top_of() -> torch.Tensor:
    """Top tokens of each head in 12 prompts, crowded in some of them."""
    generator = np.random.default_rng(5)
    shares = generator.dirichlet(np.full(PROMPTS, 0.7), LAYERS * HEADS).repeat(POSITIONS, axis=1)
    tokens = [generator.choice(PROMPTS * POSITIONS, TOP, False, p / p.sum()) for p in shares]
    return torch.from_numpy(np.stack(tokens)).reshape(LAYERS, HEADS, TOP).int()


def draw(top: torch.Tensor, **changes: int) -> torch.Tensor:
    options = {"positions": POSITIONS, "prompts": 8, "prompts_per_head": 2, "seed": 3}
    return tokens_of_drawn_prompts(top, **(options | changes))


def prompts_of(tokens: torch.Tensor) -> set[int]:
    return set((tokens[tokens < NOWHERE] // POSITIONS).tolist())


def test_every_top_token_of_the_drawn_prompts_stays_and_no_other():
    top, found = top_of(), draw(top_of())
    assert found.dtype == top.dtype
    for layer in range(LAYERS):
        for head in range(HEADS):
            mine, drawn = top[layer, head], prompts_of(found[layer, head])
            held = prompts_of(mine)
            assert drawn <= held
            assert len(drawn) == min(2, len(held))
            inside = torch.isin(mine // POSITIONS, torch.tensor(sorted(drawn)))
            assert torch.equal(found[layer, head], torch.where(inside, mine, NOWHERE).int())


def test_a_head_with_fewer_prompts_keeps_all_and_one_without_any_has_none():
    top = top_of()
    top[0, 0] = torch.arange(9 * POSITIONS, 9 * POSITIONS + TOP)
    found = draw(top, prompts_per_head=8)
    assert torch.equal(found, torch.where(top < NOWHERE, top, NOWHERE))
    assert (found[0, 0] == NOWHERE).all()


def test_a_draw_depends_on_the_seed_the_head_and_its_prompts_alone():
    top = top_of()
    assert torch.equal(draw(top), draw(top))
    assert not torch.equal(draw(top), draw(top, seed=4))
    others = top.clone()
    others[0], others[1, :2] = 0, 0
    order = torch.randperm(TOP, generator=torch.Generator().manual_seed(0))
    shuffled = others[..., order]
    assert prompts_of(draw(shuffled)[1, 2]) == prompts_of(draw(top)[1, 2])
    same = top[:1, :1].expand(LAYERS, HEADS, TOP).contiguous()
    drawn = draw(same).unflatten(0, (LAYERS,)).reshape(-1, TOP)
    assert len({frozenset(prompts_of(row)) for row in drawn}) > 1


def test_every_prompt_is_drawn_equally_often():
    top, draws = top_of()[1:, :1], 2000
    held = sorted(prompts_of(top))
    counts = dict.fromkeys(held, 0)
    for seed in range(draws):
        for prompt in prompts_of(draw(top, seed=seed)):
            counts[prompt] += 1
    share = 2 / len(held)
    bound = 4.5 * np.sqrt(draws * share * (1 - share))
    assert sum(counts.values()) == 2 * draws
    assert all(abs(count - draws * share) < bound for count in counts.values())


def test_sums_over_all_draws_are_those_of_all_top_tokens():
    """The mean of a head is a ratio of two sums; over all draws that there are, each has the right mean."""
    top, values = top_of()[0, 1], np.random.default_rng(1).normal(size=TOP)
    prompt = top.numpy() // POSITIONS
    held = np.unique(prompt[prompt < 8])
    kept = [np.isin(prompt, each) for each in combinations(held, 2)]
    share = 2 / len(held)
    assert np.mean([values[k].sum() for k in kept]) == pytest.approx(
        share * values[prompt < 8].sum()
    )
    assert np.mean([k.sum() for k in kept]) == pytest.approx(share * (prompt < 8).sum())


def test_tokens_are_drawn_in_the_drawn_prompts():
    found = draw(top_of())
    tokens = draw_tokens(
        found,
        positions=POSITIONS,
        prompts=8,
        tokens_per_head=None,
        random_tokens_per_head=0,
        first_position=0,
        seed=3,
    )
    assert len(tokens) == int((found < NOWHERE).sum())
    assert set((tokens.prompt * POSITIONS + tokens.position).tolist()) <= set(
        found.unique().tolist()
    )


@pytest.mark.parametrize("value", [0, -1])
def test_a_draw_of_nothing_is_refused(value: int):
    with pytest.raises(InputError, match=f"^prompts_per_head: {value}; take at least 1$"):
        draw(top_of(), prompts_per_head=value)
