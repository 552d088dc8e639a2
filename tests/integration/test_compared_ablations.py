"""Heads under every ablation and under a random change, against the plain model with hooks, run whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from selfrepair import InputError
from selfrepair.measure.compared_ablations import (
    LOSS_POSITIONS,
    QUANTITIES,
    ComparedAblations,
    compare_ablations,
)
from selfrepair.measure.drawing import DrawnTokens
from selfrepair.model.decoder import Decoder
from selfrepair.other_ablations import COMPARED, OPTIMAL, RANDOM
from selfrepair.testing.hooked_reference import HookedModel, Pass
from tiny_models import FLOAT64, POST_NORMS, SUPPORTED, random_tokens

Tiny = Callable[..., Decoder]

PROMPTS, LENGTH = 5, 18
TOKENS = random_tokens(PROMPTS, LENGTH)
DONORS = random_tokens(PROMPTS, LENGTH, seed=2)
# As after a beginning-of-sequence token: the same first token in prompt and partner.
TOKENS[:, 0] = DONORS[:, 0] = 1
HEADS = [(0, 1), (1, 0), (1, 2)]
# Largest difference measured: 3e-6 in float32, 3e-15 in float64.
BOUND = {"float32": 1e-4, "float64": 1e-12}
CASES = [(name, "float32") for name in [*SUPPORTED, *POST_NORMS, "nanochat", "granite", "cohere"]]
CASES += [(name, "float64") for name in FLOAT64]


def drawn_tokens() -> DrawnTokens:
    """A few tokens of each head, none in the third prompt."""
    generator = torch.Generator().manual_seed(3)
    wanted = torch.rand(PROMPTS, LENGTH - 1, len(HEADS), generator=generator) < 0.2
    wanted[2], wanted[:, 0] = False, False
    prompt, position, at = wanted.nonzero().T
    layer, head = torch.tensor(HEADS)[at].T
    yes = torch.ones(len(prompt), dtype=torch.bool)
    return DrawnTokens(prompt, position, layer, head, yes, ~yes)


def means_of(model: Decoder) -> Tensor:
    generator = torch.Generator().manual_seed(6)
    shape = model.n_layers, model.n_heads, model.d_head
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(model.dtype)


def compared(model: Decoder, **more: object) -> ComparedAblations:
    settings = {
        "heads": HEADS,
        "donors": DONORS,
        "mean_z": means_of(model),
        "constants": means_of(model)[0, : len(HEADS)] * 2,
        "first_position": 1,
        "seed": 4,
    }
    return compare_ablations(model, TOKENS, drawn_tokens(), **(settings | more))


def replaced_z(model: Decoder, at: int, ablation: str, clean: Pass, donor: Pass) -> Tensor:
    layer, head = HEADS[at]
    if ablation == "resample":
        return donor.z[layer][..., head, :]
    z = clean.z[layer][..., head, :].clone()
    z[:, 1:] = {
        "mean": means_of(model)[layer, head],
        "zero": model.layers[layer].value_bias[head],
        OPTIMAL: means_of(model)[0, at] * 2,
    }[ablation]
    return z


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_every_ablation_is_that_of_the_plain_model(name: str, dtype: str, tiny: Tiny) -> None:
    model = tiny(name, dtype)
    hooked = HookedModel(model, attention="sdpa" if dtype == "float64" else "eager")
    clean, donor, found = hooked.run(TOKENS), hooked.run(DONORS), compared(model, batch=2, chunk=3)
    for at, (layer, head) in enumerate(HEADS):
        here = found.head == at
        places = found.prompt[here], found.position[here]
        own = hooked.frozen_logit(hooked.head_write(layer, head, clean, clean), clean, TOKENS)
        assert_close(found.direct_effect[here], own[places], dtype)
        for number, ablation in enumerate(COMPARED):
            if ablation == RANDOM:
                continue
            run = hooked.run(
                TOKENS, z=[(layer, head, replaced_z(model, at, ablation, clean, donor))]
            )
            change = (run.logits - clean.logits)[:, :-1].gather(-1, TOKENS[:, 1:, None])[..., 0]
            after = hooked.frozen_logit(hooked.head_write(layer, head, run, clean), clean, TOKENS)
            values = dict(zip(QUANTITIES, found.values[ablation][:, here], strict=True))
            assert_close(values["delta_logit"], change[places], dtype)
            assert_close(values["ablated_direct_effect"], after[places], dtype)
            repaired = (change - (after - own)[:, :-1])[places]
            assert_close(values["self_repair"], repaired, dtype)
            # With so short prompts every position is looked at.
            assert LENGTH - 2 <= LOSS_POSITIONS
            p, q = (hooked.log_probabilities(each)[:, 1:-1] for each in (clean, run))
            expected = (p.exp() * (p - q)).sum(-1).mean(1)
            torch.testing.assert_close(
                found.loss[:, at, number], expected, rtol=1e-3, atol=BOUND[dtype]
            )
    assert found.decomposition_error < BOUND[dtype]


def assert_close(found: Tensor, expected: Tensor, dtype: str) -> None:
    assert len(found)
    torch.testing.assert_close(found, expected, rtol=0, atol=BOUND[dtype])


def test_a_random_change_is_as_large_as_that_of_resampling(tiny: Tiny) -> None:
    model = tiny("llama", "float64")
    found = compared(model)
    (layer, head), hooked = HEADS[1], HookedModel(model, attention="sdpa")
    clean, donor = hooked.run(TOKENS), hooked.run(DONORS)
    w_o = model.layers[layer].w_o[head]
    size = ((donor.z[layer] - clean.z[layer])[:, :-1, head] @ w_o).norm(dim=-1)
    here = found.head == 1
    places = found.prompt[here], found.position[here]
    values = dict(zip(QUANTITIES, found.values[RANDOM][:, here], strict=True))
    change = values["ablated_direct_effect"] - found.direct_effect[here]
    # No change of the output of that size can change the direct effect by more.
    u, scale = directions(model, clean), hooked.scale(clean)[:, :-1]
    largest = size * u.norm(dim=-1) / scale
    assert (change.abs() <= largest[places]).all()
    assert float(change.abs().max()) > 0.01
    resampled = found.values["resample"][0, here] - found.direct_effect[here]
    assert not torch.allclose(change, resampled, atol=1e-3)


def directions(model: Decoder, clean: Pass) -> Tensor:
    from selfrepair.model.direct_effect import targets

    return targets(model, TOKENS[:, 1:]).directions


def test_neither_batches_nor_shards_change_anything(tiny: Tiny) -> None:
    model = tiny("gpt2", "float64")
    whole, parts = compared(model), compared(model, batch=1, chunk=1)
    tokens = drawn_tokens()
    shards = [
        compare_ablations(
            model,
            TOKENS[rows.start : rows.stop],
            tokens.in_prompts(rows),
            heads=HEADS,
            donors=DONORS[rows.start : rows.stop],
            mean_z=means_of(model),
            constants=means_of(model)[0, : len(HEADS)] * 2,
            first_position=1,
            first_prompt=rows.start,
            seed=4,
        )
        for rows in (range(2), range(2, PROMPTS))
    ]
    for name, expected in whole.arrays().items():
        joined = torch.cat([shard.arrays()[name] for shard in shards])
        if name == "prompt":
            joined[len(shards[0].prompt) :] += 2
        for other in (parts.arrays()[name], joined):
            torch.testing.assert_close(other, expected, rtol=1e-9, atol=1e-11)


def test_what_does_not_fit_together_is_refused(tiny: Tiny) -> None:
    model = tiny("gpt2")
    with pytest.raises(InputError, match=r"heads: \[9, 0\] is not one of"):
        compared(model, heads=[(9, 0), *HEADS[1:]])
    with pytest.raises(InputError, match="of a head that is not compared"):
        compared(model, heads=HEADS[:2])
