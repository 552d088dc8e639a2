"""The narrow task against the whole model with hooks, run once per head."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from selfrepair.errors import InputError
from selfrepair.measure.narrow import DECIMALS, MEASURED, every_head, narrow_task
from selfrepair.model.decoder import Decoder
from selfrepair.testing.hooked_reference import HookedModel
from selfrepair.text.ioi import ioi_prompts
from tiny_models import POST_NORMS, SUPPORTED, naming_tokenizer

Tiny = Callable[..., Decoder]

TABLE = ioi_prompts(naming_tokenizer(), prompts=5, seed=0, bos_token=1)
TOKENS, DONORS = (torch.tensor(TABLE[name].to_list()) for name in ("tokens", "donor_tokens"))
ASKED = {"donors": DONORS, "subject": torch.tensor(TABLE["subject_token"].to_list())}
LAST = TOKENS.shape[1] - 2
# Largest difference measured: see the tests of sweeps; 2e-5 here.
BOUND = 2e-4


@pytest.mark.parametrize("name", [*SUPPORTED, *POST_NORMS])
def test_every_head_is_measured_where_the_answer_is_predicted(name: str, tiny: Tiny) -> None:
    model = tiny(name)
    found = narrow_task(model, TOKENS, **ASKED, batch=2, chunk=7)
    hooked = HookedModel(model, attention="eager")
    clean, donor = hooked.run(TOKENS), hooked.run(DONORS)
    logits = clean.logits[:, LAST]
    rows = torch.arange(len(TOKENS))
    centred = logits - logits.mean(-1, keepdim=True)
    for measured, token in (
        (found.answer_logit, TOKENS[:, -1]),
        (found.subject_logit, ASKED["subject"]),
    ):
        assert float((measured - centred[rows, token]).abs().max()) < BOUND
    assert found.most_likely.tolist() == (logits.argmax(-1) == TOKENS[:, -1]).tolist()
    for layer in range(model.n_layers):
        for head in range(model.n_heads):
            ablated = hooked.run(TOKENS, z=[(layer, head, donor.z[layer][..., head, :])])
            change = (ablated.logits - clean.logits)[rows, LAST, TOKENS[:, -1]]
            change -= (ablated.logits - clean.logits)[:, LAST].mean(-1)
            own, after = (
                hooked.frozen_logit(hooked.head_write(layer, head, run, clean), clean, TOKENS)[
                    :, LAST
                ]
                for run in (clean, ablated)
            )
            here = {name: getattr(found, name)[:, layer, head] for name in MEASURED}
            expected = {
                "direct_effect": own,
                "ablated_direct_effect": after,
                "self_repair": change - (after - own),
            }
            for column, value in expected.items():
                assert float((here[column] - value).abs().max()) < BOUND, column
            for other in range(layer + 1, model.n_layers):
                for which in range(model.n_heads):
                    before, then = (
                        hooked.frozen_logit(
                            hooked.head_write(other, which, run, clean), clean, TOKENS
                        )[:, LAST]
                        for run in (clean, ablated)
                    )
                    mean = float((then - before).mean())
                    assert abs(float(found.changes[layer, head, other, which]) - mean) < BOUND


def test_its_terms_are_those_of_a_sweep(tiny: Tiny) -> None:
    import selfrepair

    model = tiny("llama")
    found = narrow_task(model, TOKENS, **ASKED)
    sweep = selfrepair.sweep(model, TOKENS, donors=DONORS)
    for name in MEASURED:
        difference = getattr(found, name) - getattr(sweep, name)[:, LAST]
        assert float(difference.abs().max()) < 1e-4, name
    assert 0 < found.decomposition_error < 1e-3
    assert 0 < found.map_error < 1e-3


def test_results_do_not_depend_on_batches(tiny: Tiny) -> None:
    model = tiny("gpt2")
    whole, parts = (
        narrow_task(model, TOKENS, **ASKED, batch=b, chunk=c) for b, c in ((5, 99), (1, 1))
    )
    for name, values in whole.arrays().items():
        difference = values.double() - parts.arrays()[name].double()
        # The stored map is rounded, so that two values next to each other may part.
        bound = 10.0**-DECIMALS * len(TOKENS) if name == "map.sums" else 1e-5
        assert float(difference.abs().max()) <= bound * 1.01, name


def test_the_stored_map_is_rounded_sums(tiny: Tiny) -> None:
    found = narrow_task(tiny("gpt2"), TOKENS, **ASKED)
    arrays = found.arrays()
    assert "from_post_norms" not in arrays
    assert arrays["map.prompts"].tolist() == [len(TOKENS)]
    means = arrays["map.sums"].double() / len(TOKENS)
    assert float((means - found.changes).abs().max()) < 0.5 * 10.0**-DECIMALS + 1e-6
    assert float(found.changes.abs().max()) > 0.01


def test_without_a_prompt_there_is_nothing(tiny: Tiny) -> None:
    model = tiny("gpt2")
    none = torch.zeros(0, 2, dtype=torch.int64)
    found = narrow_task(model, none, donors=none, subject=none[:, 0])
    assert found.n_prompts == 0
    arrays = found.arrays()
    assert arrays["self_repair"].shape == (0, model.n_layers, model.n_heads)
    assert not arrays["map.sums"].any()
    assert arrays.keys() == narrow_task(model, TOKENS, **ASKED).arrays().keys()


def test_every_head_stands_in_the_order_of_prompts(tiny: Tiny) -> None:
    model = tiny("gpt2")
    drawn = every_head(model, prompts=2, position=4)
    places = [*zip(drawn.prompt.tolist(), drawn.layer.tolist(), drawn.head.tolist(), strict=True)]
    assert places == sorted(places)
    assert len(set(places)) == 2 * model.n_layers * model.n_heads
    assert set(drawn.position.tolist()) == {4}
    assert drawn.top.all()


def test_as_many_subjects_as_prompts(tiny: Tiny, shapes_unchecked: None) -> None:
    with pytest.raises(InputError, match="5 prompts, but 1 subjects"):
        narrow_task(tiny("gpt2"), TOKENS, donors=DONORS, subject=torch.tensor([4]))
