"""Sums of the repair map: what they are of, whatever the batches, and how maps are joined and stored."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import tiny_models
from drawn_tokens import drawn_at, index_of, some_drawn
from selfrepair import ExactnessError
from selfrepair.measure.drawing import DrawnTokens
from selfrepair.measure.repair_map import RepairMap
from selfrepair.measure.token_sweep import TokenSweep, sweep_tokens
from selfrepair.model.decoder import Decoder
from selfrepair.model.summing import Sums
from selfrepair.vocabulary import FINAL_NORM, HEAD, MLP, components
from threads import threads

Tiny = Callable[..., Decoder]

TOKENS = tiny_models.random_tokens(5, 12)
DONORS = tiny_models.random_tokens(5, 12, seed=2)
NAMES = ("sums", "squares", "products", "tokens", "tokens_squared", "prompts")


def mapped(model: Decoder, drawn: DrawnTokens, **options: int) -> TokenSweep:
    return sweep_tokens(model, TOKENS, drawn, donors=DONORS, mapped=True, **options)


def worst(own: RepairMap, other: RepairMap) -> float:
    pairs = zip(own.arrays().values(), other.arrays().values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def single_changes(model: Decoder, drawn: DrawnTokens) -> Tensor:
    """Every component's change on each instance: a map of one instance each."""
    found = []
    for row in range(len(drawn)):
        alone = drawn.where(torch.arange(len(drawn)) == row)
        alone = drawn_at(torch.stack(index_of(alone), 1))
        found.append(mapped(model, alone).repair_map.sums[alone.layer[0], alone.head[0]])
    return torch.stack(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_sums_are_over_prompts_of_sums_over_top_tokens(name: str, tiny: Tiny) -> None:
    model = tiny(name, "float64")
    drawn = some_drawn(model, TOKENS, share=0.08)
    found = mapped(model, drawn, batch=2, chunk=3).repair_map
    each = single_changes(model, drawn)
    expected = RepairMap.nothing(model)
    for layer, head, prompt in {
        key
        for key in zip(*(t.tolist() for t in (drawn.layer, drawn.head, drawn.prompt)), strict=True)
    }:
        inside = (
            (drawn.layer == layer) & (drawn.head == head) & (drawn.prompt == prompt) & drawn.top
        )
        s, n = each[inside].sum(0), int(inside.sum())
        at = layer, head
        expected.sums[at] += s
        expected.squares[at] += s**2
        expected.products[at] += s * n
        expected.tokens[at] += n
        expected.tokens_squared[at] += n**2
        expected.prompts[at] += n > 0
    assert worst(found, expected) < (1e-12 if name == "gpt2" else 1e-4)  # measured: 1e-14, 8e-6
    assert int(found.tokens.sum()) == int(drawn.top.sum()) < len(drawn)
    assert float(found.prompts.max()) > 1
    assert bool((found.tokens_squared > found.tokens).any())  # several tokens in a prompt
    assert {values.dtype for values in found.arrays().values()} == {torch.float64}


@pytest.mark.parametrize("name", ["gpt2", "pythia", "olmo2"])
def test_row_sums_are_the_terms(name: str, tiny: Tiny) -> None:
    model = tiny(name, "float64")
    drawn = some_drawn(model, TOKENS, share=0.3)
    result = mapped(model, drawn)
    assert result.repair_map.map_error < 1e-6  # measured: 1e-15; 5e-7 (olmo2, float32 norms)
    wanted = components(model.n_layers, model.n_heads, post_norms=model.has_post_norms)
    kinds = [kind for kind, _, _ in wanted]
    terms = {HEAD: result.from_heads, MLP: result.from_mlps, FINAL_NORM: result.from_norm}
    for kind, term in (terms | {"norm": result.from_post_norms}).items():
        chosen = [
            k == kind or (kind == "norm" and k.endswith(" norm") and k != FINAL_NORM) for k in kinds
        ]
        own = result.repair_map.sums[..., chosen].sum(-1)
        expected = torch.zeros_like(own)
        at = (drawn.layer, drawn.head)
        expected.index_put_(at, term.double() * drawn.top, accumulate=True)
        torch.testing.assert_close(own, expected, rtol=0, atol=1e-5)  # measured: 8e-7 (olmo2)


@pytest.mark.parametrize("name", ["gpt2", "pythia"])
def test_nothing_before_the_ablation_changes(name: str, tiny: Tiny) -> None:
    model = tiny(name)
    found = mapped(model, some_drawn(model, TOKENS, share=0.3)).repair_map
    for place, (kind, layer, _) in enumerate(components(3, 3, post_norms=False)):
        for ablated in range(3):
            sees = kind == FINAL_NORM or layer > ablated
            sees = sees or (kind == MLP and layer == ablated and name == "gpt2")
            assert bool(found.sums[ablated, :, place].any()) is sees, (kind, layer, ablated)


def test_donors_that_are_the_prompts_change_nothing_but_count(tiny: Tiny) -> None:
    model = tiny("gemma2")
    drawn = some_drawn(model, TOKENS, share=0.2)
    found = sweep_tokens(model, TOKENS, drawn, donors=TOKENS, mapped=True).repair_map
    for name in ("sums", "squares", "products"):
        assert not getattr(found, name).any()
    assert int(found.tokens.sum()) == int(drawn.top.sum())


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-4), ("float64", 1e-11)])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_maps_of_shards_add_up(name: str, dtype: str, bound: float, tiny: Tiny) -> None:
    model = tiny(name, dtype)
    drawn = some_drawn(model, TOKENS, share=0.3)
    whole = mapped(model, drawn).repair_map
    shards = []
    for rows in (range(0, 2), range(2, 3), range(3, 5)):
        some = slice(rows.start, rows.stop)
        shards.append(
            sweep_tokens(
                model, TOKENS[some], drawn.in_prompts(rows), donors=DONORS[some], mapped=True
            ).repair_map
        )
    total = shards[0] + shards[1] + shards[2]
    assert worst(total, whole) < bound  # measured: 0 on one thread
    assert worst(mapped(model, drawn, batch=2, chunk=2).repair_map, whole) < bound
    assert total.map_error == max(shard.map_error for shard in shards)


@pytest.mark.slow
def test_which_thread_did_what_changes_no_bit(tiny: Tiny) -> None:
    model = tiny("gpt2")
    drawn = some_drawn(model, TOKENS, share=0.5)
    alone = mapped(model, drawn, chunk=2).repair_map
    with threads(3):
        first = mapped(model, drawn, chunk=2).repair_map
        # Other parts of a batch are recorded together: on some CPUs a product then rounds otherwise.
        assert worst(first, alone) < 1e-4
        for _ in range(3):
            assert worst(mapped(model, drawn, chunk=2).repair_map, first) == 0


def test_arrays_are_a_map_again(tiny: Tiny) -> None:
    model = tiny("gpt2")
    result = mapped(model, some_drawn(model, TOKENS, share=0.2))
    stored = {"map." + name: getattr(result.repair_map, name) for name in NAMES}
    assert result.repair_map.arrays().keys() == stored.keys()
    again = RepairMap.from_arrays(result.arrays(), map_error=result.repair_map.map_error)
    assert worst(again, result.repair_map) == 0
    assert again.map_error == result.repair_map.map_error > 0
    assert again.sums.shape == (3, 3, len(components(3, 3, post_norms=False)))


def test_without_it_there_is_no_map(tiny: Tiny) -> None:
    drawn = some_drawn(tiny("gpt2"), TOKENS, share=0.1)
    result = sweep_tokens(tiny("gpt2"), TOKENS, drawn, donors=DONORS)
    assert result.repair_map is None
    assert not [name for name in result.arrays() if name.startswith("map.")]


@pytest.mark.parametrize("value", [torch.nan, 1.0])
def test_a_wrong_map_is_refused(value: float, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Sums._head_changes
    monkeypatch.setattr(Sums, "_head_changes", lambda *given: whole(*given) + value)
    with pytest.raises(ExactnessError, match=r"repair map error .* exceeds 0.001 for float32"):
        mapped(tiny("gpt2"), some_drawn(tiny("gpt2"), TOKENS, share=0.2))
