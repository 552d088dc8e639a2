"""What is kept of chosen heads on drawn tokens, against a sweep of every token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from selfrepair.ablations import ABLATIONS
from selfrepair.measure.chosen_heads import chosen_arrays, tokens_by_ablation
from selfrepair.measure.clean_pass import clean_pass
from selfrepair.measure.drawing import DrawnTokens, draw_tokens
from selfrepair.measure.selection import top_tokens
from selfrepair.measure.sweep import sweep_each
from selfrepair.measure.sweep_result import SweepResult
from selfrepair.measure.token_sweep import sweep_tokens_each
from selfrepair.vocabulary import TOKEN_EFFECTS
from tiny_models import random_tokens

PROMPTS, LENGTH, FIRST_PROMPT = 12, 34, 30
TOKENS, DONORS = random_tokens(PROMPTS, LENGTH), random_tokens(PROMPTS, LENGTH, seed=2)
# The heads of the last layer, and others; one head is both.
HEADS, LAST = [(1, 2), (2, 1), (1, 0)], [(2, 0), (2, 1)]
TOP_DRAWN, RANDOM_DRAWN = 4, 3


@pytest.fixture(scope="module")
def dense(tiny: Any) -> dict[str, SweepResult]:
    mean_z = clean_pass(tiny("llama"), TOKENS).mean_z
    every = dict.fromkeys(ABLATIONS)
    return sweep_each(tiny("llama"), TOKENS, every, donors=DONORS, mean_z=mean_z)


@pytest.fixture(scope="module")
def drawn(dense: dict[str, SweepResult]) -> DrawnTokens:
    effects = dense["resample"].direct_effect.flatten(0, 1)
    top = torch.stack([top_tokens(each).T for each in effects.unbind(1)])
    return draw_tokens(
        top,
        positions=LENGTH - 1,
        prompts=PROMPTS,
        tokens_per_head=TOP_DRAWN,
        random_tokens_per_head=RANDOM_DRAWN,
        first_position=1,
        seed=0,
        heads=sorted({*HEADS, *LAST}),
    )


@pytest.fixture(scope="module")
def arrays(tiny: Any, drawn: DrawnTokens) -> dict[str, Tensor]:
    asked = tokens_by_ablation(drawn, HEADS, LAST)
    mean_z = clean_pass(tiny("llama"), TOKENS).mean_z
    swept = sweep_tokens_each(tiny("llama"), TOKENS, asked, donors=DONORS, mean_z=mean_z)
    return chosen_arrays(swept, asked, HEADS, LAST, first_prompt=FIRST_PROMPT)


def places(arrays: dict[str, Tensor], part: str) -> list[tuple[int, int, int]]:
    """Head, prompt and position of every instance of `tokens` or `last`."""
    names = ("head", "prompt", "position")
    return list(zip(*(arrays[f"{part}.{name}"].tolist() for name in names), strict=True))


def of_heads(drawn: DrawnTokens, heads: list[Any], flags: tuple[str, ...]) -> set[tuple[int, ...]]:
    """The same of what was drawn one way or the other."""
    table = drawn.table()
    return {
        (heads.index(at), row["prompt"] + FIRST_PROMPT, row["position"])
        for row in table.iter_rows(named=True)
        if (at := (row["layer"], row["head"])) in heads and any(row[flag] for flag in flags)
    }


def test_resampling_takes_all_drawn_tokens_and_other_ablations_the_last_layers_top_tokens(
    drawn: DrawnTokens,
) -> None:
    asked = tokens_by_ablation(drawn, HEADS, LAST)
    assert list(asked) == list(ABLATIONS)
    for name in ("mean", "zero"):
        assert bool(asked[name].top.all())
        assert set(zip(asked[name].layer.tolist(), asked[name].head.tolist(), strict=True)) == set(
            LAST
        )
        assert len(asked[name]) == len(LAST) * TOP_DRAWN
    random_alone = drawn.where((drawn.layer == 2) & (drawn.head == 0) & ~drawn.top)
    assert len(asked["resample"]) == len(drawn) - len(random_alone)


def test_chosen_heads_keep_every_drawn_token_with_its_effects(
    arrays: dict[str, Tensor], drawn: DrawnTokens, dense: dict[str, SweepResult]
) -> None:
    found = places(arrays, "tokens")
    assert len(set(found)) == len(found)
    assert set(found) == of_heads(drawn, HEADS, ("top", "random"))
    for flag, count in (("top", TOP_DRAWN), ("random", RANDOM_DRAWN)):
        flagged = arrays[f"tokens.{flag}"] > 0
        kept = {place for place, wanted in zip(found, flagged.tolist(), strict=True) if wanted}
        assert kept == of_heads(drawn, HEADS, (flag,))
        assert len(kept) == count * len(HEADS)
    for row, (index, prompt, position) in enumerate(found):
        for name in TOKEN_EFFECTS:
            expected = getattr(dense["resample"], name)[prompt - FIRST_PROMPT, position][
                HEADS[index]
            ]
            measured = float(arrays[f"tokens.{name}"][row])
            assert measured == pytest.approx(float(expected), abs=1e-5)


def test_the_last_layers_heads_keep_their_top_tokens_scale_under_every_ablation(
    arrays: dict[str, Tensor], drawn: DrawnTokens, dense: dict[str, SweepResult]
) -> None:
    found = places(arrays, "last")
    assert len(found) == len(LAST) * TOP_DRAWN
    assert set(found) == of_heads(drawn, LAST, ("top",))
    for row, (index, prompt, position) in enumerate(found):
        at = prompt - FIRST_PROMPT, position
        for name in ABLATIONS:
            ratio = dense[name].scale[at] / dense[name].ablated_scale[at][LAST[index]]
            assert float(arrays[f"last.ratio.{name}"][row]) == pytest.approx(float(ratio), abs=1e-5)
        effect = dense["resample"].direct_effect[at][LAST[index]]
        assert float(arrays["last.direct_effect"][row]) == pytest.approx(float(effect), abs=1e-5)


def test_a_shard_without_drawn_tokens_is_empty_and_not_refused(
    tiny: Any, arrays: dict[str, Tensor], drawn: DrawnTokens
) -> None:
    none = drawn.in_prompts(range(PROMPTS, PROMPTS + 2))
    asked = tokens_by_ablation(none, HEADS, LAST)
    mean_z = clean_pass(tiny("llama"), TOKENS).mean_z
    swept = sweep_tokens_each(tiny("llama"), TOKENS[:2], asked, donors=DONORS[:2], mean_z=mean_z)
    empty = chosen_arrays(swept, asked, HEADS, LAST)
    assert list(empty) == list(arrays)
    for name, values in empty.items():
        assert values.shape == (0,)
        assert values.dtype == arrays[name].dtype
