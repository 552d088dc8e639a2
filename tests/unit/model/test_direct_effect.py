"""Direct effects, the conservation law, top tokens, and what the clean pass refuses."""

from collections.abc import Callable

import pytest
import torch

import tiny_models
from selfrepair import ExactnessError, InputError, clean_pass
from selfrepair.measure.batches import check_tokens, clean_batch
from selfrepair.measure.selection import top_tokens
from selfrepair.model.decoder import ERROR_BOUNDS, Decoder
from selfrepair.model.direct_effect import (
    bias_direct_effect,
    check_error,
    head_direct_effects,
    target_logits,
    targets,
)
from selfrepair.model.replay import Replay
from selfrepair.testing.reference import hooked

Tiny = Callable[..., Decoder]

TOKENS = tiny_models.random_tokens(5, 12)
RMS_NORM = ("llama", "qwen2", "qwen3")


# --- conservation ------------------------------------------------------------------------------


def parts_total(model: Decoder) -> tuple[torch.Tensor, torch.Tensor]:
    """Every direct effect and b, summed here anew; and the centred logits they should add up to."""
    clean = clean_batch(Replay(model), TOKENS)
    u, scale, seen = clean.targets.directions, clean.scale, clean.recording
    total = (seen.residual[0] * u).sum(-1) / scale + clean.targets.offsets
    for layer, weights in enumerate(model.layers):
        sigma, tau = seen.attention_scale[layer], seen.mlp_scale[layer]
        total += head_direct_effects(model, layer, seen.z[layer], u, scale, sigma).sum(-1)
        total += bias_direct_effect(model, layer, u, scale, sigma)
        added = weights.mlp_write.through(seen.mlp_out[layer], tau)
        total += (added * u).sum(-1) / scale
    return total, clean.logit


@pytest.mark.parametrize("name", tiny_models.SUPPORTED)
def test_direct_effects_add_up_to_the_logit(name: str, tiny: Tiny) -> None:
    total, logit = parts_total(tiny(name, "float64"))
    # Measured: 2e-15; 4e-7 where the model's own code takes the final RMSNorm in float32.
    bound = 2e-6 if name in RMS_NORM else 1e-9
    assert float((total - logit).abs().max()) < bound
    assert float(logit.abs().mean()) > 0.5


@pytest.mark.parametrize("name", tiny_models.HOOKED_PLAIN)
def test_direct_effects_add_up_through_post_norms_and_constants(name: str, tiny: Tiny) -> None:
    total, logit = parts_total(tiny(name, "float64"))
    # Measured: 2e-6 (gemma2); norms are float32 in the models' own code.
    assert float((total - logit).abs().max()) < 1e-5
    assert float(logit.abs().mean()) > 0.2


@pytest.mark.parametrize("name", tiny_models.SUPPORTED)
def test_clean_logit_is_the_hooked_models(name: str, tiny: Tiny) -> None:
    model = tiny(name)
    with torch.no_grad():
        logits = hooked(model)(TOKENS)[:, :-1]
    own = (logits - logits.mean(-1, keepdim=True)).gather(-1, TOKENS[:, 1:, None])[..., 0]
    clean = clean_pass(model, TOKENS)
    torch.testing.assert_close(clean.logit, own, rtol=0, atol=5e-5)  # measured: 4e-6
    surprisal = -logits.log_softmax(-1).gather(-1, TOKENS[:, 1:, None])[..., 0]
    torch.testing.assert_close(clean.surprisal, surprisal, rtol=0, atol=5e-5)


@pytest.mark.parametrize("left_out", ["mlp", "attention bias", "offset", "value bias"])
def test_every_component_is_needed(left_out: str, tiny: Tiny) -> None:
    """The law fails by far without any one component, so that it can tell a mistake."""
    model = tiny("gpt2", "float64")
    total, logit = parts_total(model)
    clean = clean_batch(Replay(model), TOKENS)
    u, scale = clean.targets.directions, clean.scale
    part = model.layers[1]
    missing = {
        "mlp": (clean.recording.mlp_out[1] * u).sum(-1) / scale,
        "attention bias": u @ part.b_o / scale,
        "offset": clean.targets.offsets,
        "value bias": u @ (part.value_bias[:, None] @ part.w_o).sum((0, 1)) / scale,
    }[left_out]
    assert float((total - missing - logit).abs().max()) > 0.05


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_target_directions_carry_the_centred_logit(name: str, tiny: Tiny) -> None:
    """(r . u) / S + b is the centred logit for any residual and every possible target."""
    model = tiny(name, "float64")
    every = torch.arange(model.vocabulary)[None]
    generator = torch.Generator().manual_seed(3)
    residual = torch.randn(model.d_model, generator=generator, dtype=torch.float64) + 0.5
    wanted = targets(model, every)
    own = wanted.directions[0] @ residual / model.final_norm.scale(residual) + wanted.offsets[0]
    # Measured: 2e-15 (LayerNorm), 2e-7 (the model's RMSNorm runs in float32).
    bound = 2e-6 if name in RMS_NORM else 1e-12
    torch.testing.assert_close(own, model.to_logits(residual), rtol=0, atol=bound)
    assert abs(float(own.sum())) < 1e-4


def test_logits_in_bfloat16_are_centred_and_summed_in_float32(tiny: Tiny) -> None:
    model = tiny("gpt2", "bfloat16")
    residual, following = Replay(model).record(TOKENS).residual[-1], TOKENS.roll(-1, 1)
    logits = model.network.lm_head(model.final_norm.module(residual)).double()
    centred, surprisal = target_logits(model, residual, following)
    assert centred.dtype == surprisal.dtype == torch.float32
    own = (logits - logits.mean(-1, keepdim=True)).gather(-1, following[..., None])[..., 0]
    torch.testing.assert_close(centred.double(), own, rtol=0, atol=1e-5)  # measured: 1e-7
    own = -logits.log_softmax(-1).gather(-1, following[..., None])[..., 0]
    torch.testing.assert_close(surprisal.double(), own, rtol=0, atol=1e-5)  # measured: 3e-7


# --- the clean pass ----------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("float64", 1e-12)])
def test_clean_pass_does_not_depend_on_the_batch(dtype: str, bound: float, tiny: Tiny) -> None:
    whole = clean_pass(tiny("gpt2", dtype), TOKENS, batch=5)
    for batch in (1, 2, 4):
        parts = clean_pass(tiny("gpt2", dtype), TOKENS, batch=batch)
        for name in ("direct_effect", "scale", "logit", "surprisal", "mean_z"):
            own, other = getattr(parts, name), getattr(whole, name)
            # Measured: 2e-6 in float32, 7e-15 in float64.
            torch.testing.assert_close(own, other.to(own), rtol=0, atol=bound)


def test_mean_z_is_over_all_positions_and_prompts(tiny: Tiny) -> None:
    """The last position too, though it has no target."""
    model = tiny("pythia", "float64")
    z = torch.stack(Replay(model).record(TOKENS).z)
    mean = clean_pass(model, TOKENS, batch=2).mean_z
    torch.testing.assert_close(mean, z.mean((1, 2)), rtol=0, atol=1e-12)
    assert mean.shape == (model.n_layers, model.n_heads, model.d_head)


def test_a_last_token_that_the_model_cannot_read_is_only_a_target(tiny: Tiny) -> None:
    """GPT-2 has no embedding for the position after its context."""
    model = tiny("gpt2")
    tokens = tiny_models.random_tokens(2, model.context_length + 1)
    z = torch.stack(Replay(model).record_z(tokens[:, :-1]))
    # Measured: 1e-7.
    mean = clean_pass(model, tokens).mean_z
    torch.testing.assert_close(mean, z.double().mean((1, 2)), rtol=0, atol=1e-6)


def test_clean_pass_is_deterministic(tiny: Tiny) -> None:
    first, second = (clean_pass(tiny("gpt2"), TOKENS, batch=2) for _ in range(2))
    assert torch.equal(first.direct_effect, second.direct_effect)
    assert torch.equal(first.mean_z, second.mean_z)


# --- exactness ---------------------------------------------------------------------------------


def test_conservation_error_beyond_the_bound_is_raised(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ERROR_BOUNDS, "float32", 0.0)
    with pytest.raises(ExactnessError, match=r"conservation error .* float32"):
        clean_pass(tiny("gpt2"), TOKENS)


def test_a_corrupted_layer_breaks_conservation(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("gpt2")
    clean_pass(model, TOKENS)
    monkeypatch.setattr(model.layers[1], "b_o", model.layers[1].b_o + torch.eye(24)[0])
    with pytest.raises(ExactnessError, match="conservation"):
        clean_pass(model, TOKENS)


def test_an_error_that_is_not_a_number_is_raised() -> None:
    check_error("conservation", 0.0, "float32")
    with pytest.raises(ExactnessError, match="shard 3: conservation error nan"):
        check_error("conservation", float("nan"), "float32", where="shard 3")


# --- top tokens --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "count"), [(50, 1), (99, 1), (100, 2), (150, 3), (350, 7), (2032, 40)]
)
def test_top_tokens_are_the_floor_of_two_percent(tokens: int, count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    effects = torch.randn(tokens, 3, generator=generator)
    top = top_tokens(effects)
    assert top.shape == (count, 3)
    for head in range(3):
        expected = sorted(range(tokens), key=lambda i: -float(effects[i, head]))[:count]
        assert top[:, head].tolist() == expected


def test_top_tokens_are_the_positive_end() -> None:
    effects = torch.zeros(100, 1)
    effects[3], effects[7], effects[9] = -5.0, 1.0, 2.0
    assert top_tokens(effects)[:, 0].tolist() == [9, 7]


def test_ties_go_to_the_earlier_token() -> None:
    effects = torch.zeros(3000, 2)
    effects[[40, 2500, 17, 1999], 1] = 1.0
    top = top_tokens(effects)
    assert top[:, 0].tolist() == list(range(60))
    assert top[:5, 1].tolist() == [17, 40, 1999, 2500, 0]


@pytest.mark.parametrize("tokens", [1, 49])
def test_a_sample_without_a_top_token_is_refused(tokens: int) -> None:
    with pytest.raises(InputError, match=f"^{tokens} tokens .* at least 50 tokens$"):
        top_tokens(torch.zeros(tokens, 2))


# --- check_tokens ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (torch.zeros(8, dtype=torch.long), r"shape \[8\]"),
        (torch.zeros(1, 2, 8, dtype=torch.long), r"shape \[1, 2, 8\]"),
        (torch.zeros(0, 8, dtype=torch.long), r"shape \[0, 8\]"),
        (torch.zeros(2, 8), "torch.float32"),
        (torch.zeros(2, 8, dtype=torch.bool), "torch.bool"),
        (torch.zeros(2, 1, dtype=torch.long), "windows of 1 tokens; .* 2 to 65"),
        (torch.zeros(2, 66, dtype=torch.long), "windows of 66 tokens; .* 2 to 65"),
        (torch.full((2, 8), 61), "ids from 61 to 61; .* 0 to 60"),
        (torch.tensor([[3, -1, 5]]), "ids from -1 to 5; .* 0 to 60"),
    ],
)
def test_unmeasurable_tokens_are_refused(tokens: torch.Tensor, says: str, tiny: Tiny) -> None:
    with pytest.raises(InputError, match=says) as caught:
        check_tokens(tiny("gpt2"), tokens, name="donors")
    message = str(caught.value)
    assert message.startswith("donors: ")
    assert "\n" not in message


@pytest.mark.parametrize("length", [2, 65])
def test_extreme_windows_are_taken(length: int, tiny: Tiny) -> None:
    """The longest window is one more than the context, because its last token is only a target."""
    clean = clean_pass(tiny("gpt2"), tiny_models.random_tokens(2, length))
    assert clean.logit.shape == (2, length - 1)
    assert clean.conservation_error < 1e-4
