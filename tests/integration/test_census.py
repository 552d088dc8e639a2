"""Every decoder architecture that TransformerLens names and transformers can build is right, or refused with
the reason that `tests/census.py` expects."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import census
from census import CASES, Case
from drawn_tokens import assert_map_of
from selfrepair import InputError, load_model, sweep
from selfrepair.model.decoder import Decoder
from selfrepair.model.replay import Replay
from selfrepair.testing.hooked_reference import HookedModel, hooked_map, hooked_sweep
from tiny_models import random_tokens, save

# Longer than the windows, and than the prompts that a model is probed with when it is loaded.
TOKENS = random_tokens(2, 14)
DONORS = random_tokens(2, 14, seed=2)
# Largest difference measured in any number, logits in float32: 3.4e-5 (nemotron's scale, of about 30).
BOUND = 5e-5


def test_every_architecture_is_decided() -> None:
    """A new version of either package that adds one fails here, until somebody decides."""
    buildable = {
        model_type
        for model_type, built in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()
        if {built} & SUPPORTED_ARCHITECTURES.keys()
    }
    assert buildable == {case.model_type for case in CASES}


def test_at_least_fifty_are_right() -> None:
    assert len({case.architecture for case in CASES if case.refused is None}) >= 50


def test_the_page_is_current() -> None:
    assert census.PAGE.read_text(encoding="utf-8") == census.page()


@pytest.mark.parametrize("case", [c for c in CASES if c.refused is None], ids=lambda c: c.key)
def test_right(case: Case, tmp_path: Path) -> None:
    model = load_model(save(case.build(), tmp_path), device="cpu")
    config = model.network.config.get_text_config()
    assert model.n_heads == config.num_attention_heads == 4
    assert model.n_layers == config.num_hidden_layers
    assert tuple(sorted(traits(model))) == tuple(sorted(case.traits))
    fast = sweep(model, TOKENS, donors=DONORS)
    slow = hooked_sweep(
        HookedModel(model, attention=case.reference_attention), TOKENS, donors=DONORS
    )
    own, expected = fast.arrays(), slow.arrays()
    assert own.keys() == expected.keys()
    for name, array in expected.items():
        assert float((own[name] - array).abs().max()) < BOUND, name
    assert fast.conservation_error < BOUND
    assert fast.decomposition_error < BOUND
    assert slow.conservation_error < BOUND
    assert slow.decomposition_error < BOUND
    assert float(slow.delta_logit.abs().mean()) > 0.1
    if census.POST_NORMS not in case.traits:
        assert not bool(fast.from_post_norms.any())


EXPERTS = [c for c in CASES if c.refused is None and census.EXPERTS in c.traits]


@pytest.mark.parametrize("case", EXPERTS, ids=lambda c: c.key)
def test_the_repair_map_of_experts(case: Case, tmp_path: Path) -> None:
    model = load_model(save(case.build(), tmp_path), device="cpu")
    reference = HookedModel(model, attention=case.reference_attention)
    assert_map_of(
        model, hooked_map(reference, TOKENS, donors=DONORS), TOKENS, {"donors": DONORS}, share=1.0
    )


@pytest.mark.usefixtures("shapes_unchecked")  # a user is told by our own checks
@pytest.mark.parametrize("case", [c for c in CASES if c.refused is not None], ids=lambda c: c.key)
def test_refused(case: Case, tmp_path: Path) -> None:
    if case.refused == census.NOT_BUILT:  # and so not here either
        save(case.config(), tmp_path)
        save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    else:
        save(case.build(), tmp_path)
    assert case.refused is not None
    with pytest.raises(InputError, match=case.refused) as caught:
        load_model(tmp_path, device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path) in message
    assert "; use " in message  # the remedy


@pytest.mark.parametrize("model_type", ["afmoe", "granitemoe"])
def test_a_dtype_that_torch_lacks_a_product_for_is_refused(model_type: str, tmp_path: Path) -> None:
    """torch multiplies grouped matrices, in which these keep their experts, in no float64."""
    case = next(c for c in CASES if c.model_type == model_type)
    folder = save(case.build(), tmp_path)
    with pytest.raises(InputError, match="cannot run in float64 on cpu") as caught:
        load_model(folder, device="cpu", dtype="float64")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("use another dtype, such as float32")


def traits(model: Decoder) -> list[str]:
    """What is special about a loaded model, by what it does."""
    writes = [w for layer in model.layers for w in (layer.attention_write, layer.mlp_write)]
    found = {
        census.PARALLEL: any(layer.parallel for layer in model.layers),
        census.POST_NORMS: model.has_post_norms,
        census.SCALED: model.logit_scale != 1,
        census.CAPPED: model.logit_softcap is not None,
        census.FACTORS: any(write.factor != 1 for write in writes),
        census.EXPERTS: any(layer.neurons is None for layer in model.layers),
        census.WINDOWED: not all(reach(model)),
        census.SINKS: any(name.endswith("sinks") for name, _ in model.network.named_parameters()),
    }
    return [name for name, has in found.items() if has]


def reach(model: Decoder) -> list[bool]:
    """For each layer, whether its heads at the last position see the first."""
    replay = Replay(model)
    clean = replay.record(TOKENS[:, :-1])
    seen = []
    for layer, stream in enumerate(clean.residual[:-1]):
        changed: Tensor = stream.clone()
        changed[:, 0] = changed[:, 0].flip(-1)
        seen.append(
            not torch.equal(replay.head_outputs(layer, changed)[:, -1], clean.z[layer][:, -1])
        )
    return seen
