"""The plain model measures a few numbers of a sweep again: on several families, and in what is stored as sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import selfrepair
from census import CASES
from drawn_tokens import every_token, some_drawn
from selfrepair import ExactnessError
from selfrepair.measure.prompt_sums import summed
from selfrepair.measure.token_sweep import sweep_tokens
from selfrepair.model.decoder import Decoder
from selfrepair.model.parts import ModelParts
from selfrepair.testing import agreement
from selfrepair.testing.agreement import (
    INSTANCES,
    Unsuitable,
    compare,
    drawn_places,
    plain_model,
    summed_places,
    tolerance_of,
)
from selfrepair.text.prompts import Prompts
from selfrepair.vocabulary import EFFECTS
from tiny_models import random_tokens, save

Tiny = Callable[..., Decoder]

PROMPTS = Prompts(random_tokens(7, 12), torch.tensor([3, 4, 5, 6, 0, 1, 2]), None)
DONORS = PROMPTS.tokens[PROMPTS.donors]
SAID = {"name": "the shard", "remedy": "do something"}
# Measured: 1.4e-5 logits (gemma2).
CLOSE = 1e-4


def swept(model: Decoder, ablation: str = "resample") -> dict[str, Tensor]:
    drawn = some_drawn(model, PROMPTS.tokens, share=0.5)
    donors = DONORS if ablation == "resample" else None
    return sweep_tokens(model, PROMPTS.tokens, drawn, ablation=ablation, donors=donors).arrays()


def plain(folder: Path, parts: ModelParts, dtype: str = "float32") -> Any:
    return plain_model(str(folder), dtype=dtype, revision=None, parts=parts)


def compared(hooked: Any, shard: dict[str, Tensor], **options: Any) -> agreement.Agreement:
    places = drawn_places(shard, heads=3, seed=0)
    asked = {"ablation": "resample", "tolerance": CLOSE, **SAID, **options}
    return compare(hooked, shard, places, PROMPTS, **asked)


@pytest.mark.slow
@pytest.mark.parametrize("ablation", ["resample", "zero"])
@pytest.mark.parametrize("name", ["gpt2", "pythia", "gemma2", "granite"])
def test_sweeps_agree_with_the_plain_model(
    name: str, ablation: str, tiny: Tiny, tiny_folder: Callable[[str], Path]
) -> None:
    model = tiny(name)
    shard = swept(model, ablation)
    found = compared(plain(tiny_folder(name), model.parts), shard, ablation=ablation)
    assert found.instances == 3 * INSTANCES
    assert [layer for layer, _ in found.heads] == [0, 1, 2]
    terms = {*EFFECTS} - ({"from_post_norms"} if not model.has_post_norms else set())
    assert {*found.largest_difference} == terms
    assert max(found.largest_difference.values()) < CLOSE


@pytest.mark.slow
@pytest.mark.parametrize("key", ["mixtral", "falcon (sequential, ALiBi)"])
def test_so_do_experts_and_a_family_whose_eager_attention_is_another(
    key: str, tmp_path: Path
) -> None:
    (case,) = (case for case in CASES if case.key == key)
    model = selfrepair.load_model(save(case.build(), tmp_path), device="cpu")
    found = compared(plain(tmp_path, model.parts), swept(model))
    assert max(found.largest_difference.values()) < CLOSE


@pytest.mark.slow
@pytest.mark.parametrize("quantity", ["direct_effect", "self_repair"])
@pytest.mark.parametrize("wrong", [2 * CLOSE, float("nan")])
def test_a_wrong_number_is_told(
    quantity: str, wrong: float, tiny: Tiny, tiny_folder: Callable[[str], Path]
) -> None:
    model = tiny("gpt2")
    shard = swept(model)
    place = drawn_places(shard, heads=3, seed=0)[4]
    shard[quantity][place.row] += wrong
    hooked = plain(tiny_folder("gpt2"), model.parts)
    with pytest.raises(ExactnessError) as caught:
        compared(hooked, shard)
    layer, head = place.head
    where = f"head {layer}.{head}, prompt {place.prompt}, position {place.positions[0]}"
    assert str(caught.value).startswith(f"the shard: {where}: {quantity} is ")
    assert str(caught.value).endswith("; do something")
    assert "\n" not in str(caught.value)


def test_sums_over_all_tokens_are_compared_too(
    tiny: Tiny, tiny_folder: Callable[[str], Path]
) -> None:
    model = tiny("gpt2")
    result = selfrepair.sweep(model, PROMPTS.tokens, donors=DONORS)
    every = every_token(model, PROMPTS.tokens)
    mask = torch.ones(7, 11, model.n_layers, model.n_heads, dtype=torch.bool)
    assert len(every) == mask.sum()
    shard = summed(result, mask, first_position=1)
    places = summed_places(shard, first_prompt=0, positions=range(1, 11), heads=2, seed=1)
    hooked = plain(tiny_folder("gpt2"), model.parts)
    asked = {"ablation": "resample", "tolerance": CLOSE, **SAID}
    found = compare(hooked, shard, places, PROMPTS, **asked)
    assert found.instances == 2 * 10
    assert max(found.largest_difference.values()) < CLOSE
    place = places[1]
    shard["all.from_mlps"][place.row, place.head[0], place.head[1]] += 11 * CLOSE
    with pytest.raises(
        ExactnessError, match=r"sum of 10 tokens: from_mlps is .*0\.001 may lie between"
    ):
        compare(hooked, shard, places, PROMPTS, **asked)


def test_what_a_plain_model_cannot_be_a_reference_of_is_not_judged(
    tiny: Tiny, tiny_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("gpt2")
    hooked = plain(tiny_folder("gpt2"), model.parts)
    measured = agreement._measured

    def wrong(*asked: Any) -> dict[str, Tensor]:
        found = measured(*asked)
        return found | {"from_mlps": found["from_mlps"] + 0.01}

    monkeypatch.setattr(agreement, "_measured", wrong)
    with pytest.raises(Unsuitable, match=r"its own terms are 0\.01 logits from its self-repair"):
        compared(hooked, swept(model))
    with pytest.raises(Unsuitable, match="nowhere"):
        plain(Path("nowhere"), model.parts)


def test_the_reference_holds_the_weights_as_they_are(
    tiny: Tiny, tiny_folder: Callable[[str], Path]
) -> None:
    """None of the layers that a replay packs or puts in place of others."""
    hooked = plain(tiny_folder("llama"), tiny("llama").parts)
    kinds = {type(module).__name__ for module in hooked.network.modules()}
    assert "LlamaRMSNorm" in kinds
    assert not kinds & {"PackedLinear", "PackedMLP", "RMSNorm"}


def test_heads_are_drawn_at_every_depth_and_by_the_seed() -> None:
    n = 30 * 9 * 4
    at = torch.arange(n)
    shard = {"layer": at // 36 % 30, "head": at // 4 % 9, "prompt": at % 4, "position": at % 7}
    drawn = [drawn_places(shard, heads=3, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    for places in drawn:
        assert [place.head[0] // 10 for place in places[::INSTANCES]] == [0, 1, 2]
        for place in places:
            row = {name: int(values[place.row]) for name, values in shard.items()}
            assert (row["layer"], row["head"]) == place.head
            assert (row["prompt"], row["position"]) == (place.prompt, place.positions[0])
    few = {name: values[:8] for name, values in shard.items()}  # one layer alone
    assert len(drawn_places(few, heads=3, seed=0)) == INSTANCES


@pytest.mark.parametrize(
    ("record", "reference", "expected"),
    [
        ({"dtype": "float32", "tf32": False}, "float32", 1e-3),
        ({"dtype": "float32", "tf32": False, "rounding_error": 0.02}, "float32", 0.021),
        ({"dtype": "float32", "tf32": True}, "float32", 0.25),
        ({"dtype": "bfloat16", "tf32": False}, "float32", 1.0),
        ({"dtype": "bfloat16", "tf32": False, "precision_error": 0.7}, "float32", 1.4),
        ({"dtype": "float64", "tf32": False}, "float64", 1e-5),
    ],
)
def test_the_tolerance_is_that_of_the_number_format(
    record: dict[str, Any], reference: str, expected: float
) -> None:
    assert tolerance_of(record, reference) == pytest.approx(expected)


def test_a_place_is_one_number(tiny: Tiny) -> None:
    shard = swept(tiny("gpt2"))
    place = drawn_places(shard, heads=1, seed=0)[0]
    assert place.stored(shard, "delta_logit") == float(shard["delta_logit"][place.row])
    assert place.stored(shard, "from_post_norms") is None
    assert replace(place, row=place.row + 1).stored(shard, "delta_logit") != place.stored(
        shard, "delta_logit"
    )
