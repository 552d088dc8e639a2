"""What a model multiplies by and caps is found by what it computes."""

from collections.abc import Callable

import pytest
import torch

import tiny_models
from selfrepair import load_model
from selfrepair.model import constants
from selfrepair.model.decoder import Decoder
from selfrepair.model.direct_effect import target_logits, targets
from selfrepair.model.replay import Replay

Tiny = Callable[..., Decoder]

TOKENS = tiny_models.random_tokens(4, 12)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("name", tiny_models.HOOKED_PLAIN)
def test_constants_are_those_of_the_config(name: str, dtype: str, tiny: Tiny) -> None:
    model = tiny(name, dtype)
    assert model.logit_scale == tiny_models.LOGIT_SCALES.get(name, 1.0)
    assert model.logit_softcap == tiny_models.CAPS.get(name)
    factor = 0.4 if name == "granite" else 1.0
    for layer in model.layers:
        assert layer.attention_write.factor == layer.mlp_write.factor == factor


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", tiny_models.SUPPORTED)
def test_a_model_without_constants_has_none(name: str, dtype: str, tiny: Tiny) -> None:
    model = tiny(name, dtype)
    assert (model.logit_scale, model.logit_softcap) == (1.0, None)
    assert not model.has_post_norms
    for layer in model.layers:
        assert layer.attention_write.factor == layer.mlp_write.factor == 1.0


@pytest.mark.parametrize("name", tiny_models.POST_NORMS)
def test_every_layer_of_a_post_norm_model_has_both(name: str, tiny: Tiny) -> None:
    model = tiny(name)
    assert model.has_post_norms
    for layer in model.layers:
        for write in (layer.attention_write, layer.mlp_write):
            assert write.norm is not None
            assert not write.norm.centred
            assert float(write.norm.gain.std()) > 0.1  # a unit gain would hide mistakes


def test_constants_that_no_config_states_are_measured(
    tiny: Tiny, tiny_folder: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "_as_stated", lambda value, decoder: value)
    model = load_model(tiny_folder("granite"), device="cpu")
    assert model.logit_scale != 1 / 1.7
    assert model.logit_scale == pytest.approx(1 / 1.7, rel=1e-6)  # measured: 3e-8
    for layer in model.layers:
        assert layer.attention_write.factor == pytest.approx(0.4, rel=1e-6)  # measured: 2e-8
        assert layer.mlp_write.factor == pytest.approx(0.4, rel=1e-6)


def test_a_cap_that_the_config_states_and_the_model_does_not_have_is_not_taken(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    monkeypatch.setattr(model.network.config, "final_logit_softcapping", 2.0, raising=False)
    with torch.no_grad():
        logits = model.network(TOKENS[:, :-1]).logits
    residual = Replay(model).record(TOKENS[:, :-1]).residual[-1]
    constants.find_logit_constants(model, residual, logits)
    assert (model.logit_scale, model.logit_softcap) == (1.0, None)


@torch.no_grad()
@pytest.mark.parametrize("name", tiny_models.HOOKED_PLAIN)
def test_logits_before_the_cap_are_capped_to_the_models_own(name: str, tiny: Tiny) -> None:
    model = tiny(name)
    residual = Replay(model).record(TOKENS[:, :-1]).residual[-1]
    own = model.network(TOKENS[:, :-1]).logits
    before = model.uncapped_logits(residual)
    torch.testing.assert_close(model.capped(before), own, rtol=0, atol=1e-5)  # measured: 1e-6
    assert float((before - own).abs().max()) > 0.5 or name not in tiny_models.CAPS
    logit, surprisal = target_logits(model, residual, TOKENS[:, 1:])
    loss = torch.nn.functional.cross_entropy(own.mT, TOKENS[:, 1:], reduction="none")
    torch.testing.assert_close(surprisal, loss, rtol=0, atol=1e-5)  # measured: 1e-6
    wanted = targets(model, TOKENS[:, 1:])
    by_direction = (residual * wanted.directions).sum(-1) / model.final_norm.scale(residual)
    torch.testing.assert_close(by_direction + wanted.offsets, logit, rtol=0, atol=1e-5)
