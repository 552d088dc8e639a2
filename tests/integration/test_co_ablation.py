"""Two heads ablated together, against the plain Hugging Face model with hooks, run whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import selfrepair
from selfrepair import InputError
from selfrepair.measure.co_ablation import MEASURED, co_ablation, no_co_ablation
from selfrepair.model.decoder import Decoder
from selfrepair.testing.hooked_reference import HookedModel, Pass
from tiny_models import FLOAT64, POST_NORMS, SUPPORTED, random_tokens

Tiny = Callable[..., Decoder]

PROMPTS, LENGTH = 5, 18
TOKENS = random_tokens(PROMPTS, LENGTH)
DONORS = random_tokens(PROMPTS, LENGTH, seed=2)
# Largest difference measured: 6e-6 in float32 (gemma3), 4e-15 in float64.
BOUND = {"float32": 1e-4, "float64": 1e-12}
CASES = [(name, "float32") for name in [*SUPPORTED, *POST_NORMS, "granite", "cohere"]]
CASES += [(name, "float64") for name in FLOAT64]


def pairs_of(model: Decoder) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Adjacent layers, and the first with the last."""
    last = (model.n_layers - 1, model.n_heads - 1)
    return [((0, 1), (1, 0)), ((0, 0), last)]


def selection(model: Decoder) -> Tensor:
    """A few tokens of each pair, in all prompts but one."""
    generator = torch.Generator().manual_seed(3)
    shape = (PROMPTS, LENGTH - 1, len(pairs_of(model)))
    selected = torch.rand(shape, generator=generator) < 0.2
    selected[2, :, 0] = False
    return selected


def target(run: Pass) -> Tensor:
    return run.logits[:, :-1].gather(-1, TOKENS[:, 1:, None])[..., 0]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_pairs_are_those_of_the_plain_model(name: str, dtype: str, tiny: Tiny) -> None:
    model = tiny(name, dtype)
    # Eager attention takes its softmax in float32.
    attention = "sdpa" if dtype == "float64" else "eager"
    hooked, selected = HookedModel(model, attention=attention), selection(model)
    found = co_ablation(
        model, TOKENS, donors=DONORS, pairs=pairs_of(model), selected=selected, batch=2, chunk=3
    )
    clean, donor = hooked.run(TOKENS), hooked.run(DONORS)
    for index, pair in enumerate(pairs_of(model)):
        z = [(layer, head, donor.z[layer][..., head, :]) for layer, head in pair]
        first, second, both = (hooked.run(TOKENS, z=some) for some in (z[:1], z[1:], z))
        changes = {
            "delta_first": target(first) - target(clean),
            "delta_second": target(second) - target(clean),
            "delta_both": target(both) - target(clean),
        }
        own, before, after = (
            hooked.frozen_logit(hooked.head_write(*head, run, clean), clean, TOKENS)[:, :-1]
            for head, run in ((pair[0], clean), (pair[1], clean), (pair[1], first))
        )
        changes |= {"direct_effect": own, "second_change": after - before}
        here = found.pair == index
        places = torch.stack([found.prompt[here], found.position[here]], 1)
        expected_places = selected[..., index].nonzero()
        assert sorted(places.tolist()) == expected_places.tolist()
        for column, expected in changes.items():
            measured = getattr(found, column)[here]
            difference = measured - expected[found.prompt[here], found.position[here]]
            assert float(difference.abs().max()) < BOUND[dtype], column
        assert float(changes["second_change"].abs().mean()) > 0.001
    excess = found.delta_both - found.delta_first - found.delta_second
    assert float(excess.abs().mean()) > 0.001


def test_the_second_heads_change_is_the_pairs_entry_in_the_map(tiny: Tiny) -> None:
    """From the sweep: what all other heads do more is the sum over them."""
    model = tiny("llama")
    every = torch.ones(PROMPTS, LENGTH - 1, 1, dtype=torch.bool)
    sweep = selfrepair.sweep(model, TOKENS, donors=DONORS)
    total = torch.zeros(PROMPTS, LENGTH - 1)
    for layer in range(1, model.n_layers):
        for head in range(model.n_heads):
            pair = ((0, 1), (layer, head))
            found = co_ablation(model, TOKENS, donors=DONORS, pairs=[pair], selected=every)
            total[found.prompt, found.position] += found.second_change
    difference = (total - sweep.from_heads[..., 0, 1]).abs().max()
    assert float(difference) < 1e-4  # measured: 3e-6


def test_results_do_not_depend_on_batches(tiny: Tiny) -> None:
    model = tiny("gpt2")
    asked = {"donors": DONORS, "pairs": pairs_of(model), "selected": selection(model)}
    whole = co_ablation(model, TOKENS, **asked)
    parts = co_ablation(model, TOKENS, batch=1, chunk=1, **asked)

    def sorted_rows(result: object) -> dict[tuple[int, ...], Tensor]:
        keys = torch.stack([getattr(result, key) for key in ("pair", "prompt", "position")], 1)
        values = torch.stack([getattr(result, name) for name in MEASURED], 1)
        return {tuple(key): value for key, value in zip(keys.tolist(), values, strict=True)}

    first, second = sorted_rows(whole), sorted_rows(parts)
    assert first.keys() == second.keys()
    assert max(float((first[k] - second[k]).abs().max()) for k in first) < 1e-5  # measured: 1e-6


def test_without_a_selected_token_there_is_no_instance(tiny: Tiny) -> None:
    model = tiny("gpt2")
    none = torch.zeros(PROMPTS, LENGTH - 1, 2, dtype=torch.bool)
    found = co_ablation(model, TOKENS, donors=DONORS, pairs=pairs_of(model), selected=none)
    assert {name: len(values) for name, values in found.arrays().items()} == dict.fromkeys(
        no_co_ablation(), 0
    )


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (((1, 0), (1, 1)), "not in a later layer"),
        (((1, 0), (0, 1)), "not in a later layer"),
        (((0, 0), (9, 1)), "is not one of"),
    ],
)
def test_a_pair_that_is_none_is_refused(pair: tuple, words: str, tiny: Tiny) -> None:
    model = tiny("gpt2")
    selected = torch.ones(PROMPTS, LENGTH - 1, 1, dtype=torch.bool)
    with pytest.raises(InputError, match=words):
        co_ablation(model, TOKENS, donors=DONORS, pairs=[pair], selected=selected)
