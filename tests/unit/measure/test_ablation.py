"""What replaces a head's output: donors, means, the folded zero, a new one; and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import selfrepair
import tiny_models
from selfrepair import InputError
from selfrepair.ablations import ABLATIONS, Ablation
from selfrepair.measure.ablation import check_ablations, replacement
from selfrepair.model.decoder import Decoder
from selfrepair.model.replay import Replay
from selfrepair.testing.reference import sweep_reference

Tiny = Callable[..., Decoder]

TOKENS = tiny_models.random_tokens(4, 10)


# --- replacements ------------------------------------------------------------------------------


def z_of(model: Decoder) -> torch.Tensor:
    return torch.zeros(4, 9, model.n_heads, model.d_head, dtype=model.dtype)


def test_zero_keeps_the_constant_value_bias(tiny: Tiny) -> None:
    model = tiny("gpt2")
    for layer, part in enumerate(model.layers):
        new = replacement(model, layer, "zero", z=z_of(model), donor_z=None, mean_z=None)
        assert torch.equal(new[0, 0], part.value_bias)
    assert float(model.layers[0].value_bias.abs().mean()) > 0.1


def test_value_bias_is_what_a_constant_stream_leaves(tiny: Tiny) -> None:
    """A stream that the norm maps to its bias alone (a constant one) makes every z the value bias."""
    for name in ("gpt2", "pythia", "opt"):
        model = tiny(name, "float64")
        replay = Replay(model)
        replay.record(TOKENS[:, :-1])
        seen: list[torch.Tensor] = []
        part = model.layers[1]
        handle = part.output_projection.register_forward_pre_hook(
            lambda _, args, seen=seen: seen.append(args[0])
        )
        stream = torch.full((1, TOKENS.shape[1] - 1, model.d_model), 0.7, dtype=torch.float64)
        replay._call(1, stream)
        handle.remove()
        z = seen[0].reshape(1, -1, model.n_heads, model.d_head)
        torch.testing.assert_close(z, part.value_bias.expand_as(z), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_models_without_biases_have_no_value_bias(name: str, tiny: Tiny) -> None:
    assert all(not layer.value_bias.any() for layer in tiny(name).layers)


def test_mean_is_the_given_one(tiny: Tiny) -> None:
    model = tiny("gpt2")
    mean_z = torch.randn(model.n_layers, model.n_heads, model.d_head, dtype=torch.float64)
    new = replacement(model, 2, "mean", z=z_of(model), donor_z=None, mean_z=mean_z)
    assert torch.equal(new[0, 0], mean_z[2].float())


def test_resample_is_the_donors_z(tiny: Tiny) -> None:
    model = tiny("gpt2")
    donor_z = torch.randn(4, 9, model.n_heads, model.d_head)
    z = z_of(model)
    assert replacement(model, 1, "resample", z=z, donor_z=donor_z, mean_z=None) is donor_z


@pytest.mark.parametrize("name", ["gpt2", "pythia", "llama"])
def test_a_new_ablation_is_one_object(
    name: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halved heads: added through the registry alone, swept, and right by the slow reference."""
    half = Ablation("half", "half ablation", lambda given: (given.z + given.value_bias) / 2)
    monkeypatch.setitem(ABLATIONS, half.name, half)
    model = tiny(name, "float64")
    swept = selfrepair.sweep(model, TOKENS, ablation="half")
    expected = sweep_reference(model, TOKENS, ablation="half")
    for quantity, values in expected.arrays().items():
        found = getattr(swept, quantity)
        # Measured: 1e-14; 4e-6 where the model's own code takes norms in float32 (Llama).
        torch.testing.assert_close(found, values, rtol=0, atol=2e-5, equal_nan=True)
    kept = swept.ablated_direct_effect / swept.direct_effect
    assert float((kept - 0.5).abs().max()) < 1e-4
    with pytest.raises(InputError, match="half takes no donors"):
        selfrepair.sweep(model, TOKENS, ablation="half", donors=TOKENS)


def test_an_unknown_ablation_names_the_known_ones(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ABLATIONS, "half", Ablation("half", "half", lambda given: given.z / 2))
    with pytest.raises(InputError, match="not one of resample, mean, zero, half"):
        selfrepair.sweep(tiny("gpt2"), TOKENS, ablation="knockout")


# --- refusals ----------------------------------------------------------------------------------

MEAN_Z = torch.zeros(3, 3, 8)


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ablation": "knockout"}, "'knockout' is not one of resample, mean, zero"),
        ({"ablation": "resample"}, "resample needs donors"),
        ({"ablation": "zero", "donors": TOKENS}, "zero takes no donors"),
        ({"ablation": "mean", "donors": TOKENS}, "mean takes no donors"),
        ({"donors": TOKENS[:3]}, r"donors: shape \[3, 10\] differs from tokens \[4, 10\]"),
        ({"donors": TOKENS[:, :9]}, r"donors: shape \[4, 9\] differs from tokens \[4, 10\]"),
        ({"donors": TOKENS + 61}, "donors: token ids"),
        ({"donors": TOKENS.float()}, "donors: .*float32"),
        ({"ablation": "mean", "mean_z": MEAN_Z[:2]}, r"mean_z: shape \[2, 3, 8\].* \[3, 3, 8\]"),
        ({"ablation": "mean", "mean_z": MEAN_Z[..., :7]}, r"mean_z: shape \[3, 3, 7\]"),
        ({"ablation": "mean", "mean_z": MEAN_Z[0]}, r"mean_z: shape \[3, 8\]"),
    ],
)
def test_an_ablation_that_does_not_fit_is_refused(
    options: dict[str, Any], says: str, tiny: Tiny
) -> None:
    with pytest.raises(InputError, match=says) as caught:
        selfrepair.sweep(tiny("gpt2"), TOKENS, **options)
    assert "\n" not in str(caught.value)


def test_what_several_ablations_lack_is_said_of_all_of_them(tiny: Tiny) -> None:
    with pytest.raises(InputError, match=r"^ablation: mean and resample needs donors: "):
        check_ablations(["mean", "resample"], TOKENS, None, None, tiny("gpt2"))


@pytest.mark.parametrize("ablation", ["mean", "zero"])
def test_a_fitting_ablation_is_taken(ablation: str, tiny: Tiny) -> None:
    check_ablations([ablation], TOKENS, None, MEAN_Z if ablation == "mean" else None, tiny("gpt2"))
    check_ablations(["resample"], TOKENS, TOKENS, None, tiny("gpt2"))
