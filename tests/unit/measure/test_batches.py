"""Recording: each prompt once, side by side or not, with the unembedding where it is needed."""

from collections.abc import Callable

import pytest
import torch

import tiny_models
from selfrepair import clean_pass
from selfrepair.measure import batches
from selfrepair.measure.batches import Recorded, clean_batch, for_each_batch
from selfrepair.measure.workers import side_by_side
from selfrepair.model.decoder import Decoder
from selfrepair.model.replay import Replay
from threads import threads

Tiny = Callable[..., Decoder]

TOKENS = tiny_models.random_tokens(7, 12)
OTHERS = tiny_models.random_tokens(7, 12, seed=2)
WITHIN = TOKENS.roll(2, 0)
# Two of the batch, one twice, one that is new.
MIXED = torch.stack([TOKENS[1], OTHERS[0], OTHERS[0], TOKENS[1], TOKENS[0], OTHERS[3], TOKENS[2]])


def recorded(
    model: Decoder, *, batch: int, workers: int, donors: torch.Tensor | None = None
) -> list[Recorded]:
    found: list[Recorded] = []
    replay = Replay(model)
    with threads(workers), side_by_side(replay) as shared:
        for_each_batch(
            replay,
            TOKENS,
            lambda each, _: found.append(each),
            donors=donors,
            batch=batch,
            workers=shared,
        )
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("donors", [OTHERS, WITHIN, MIXED])
def test_a_batch_recorded_side_by_side_is_the_batch(
    donors: torch.Tensor, workers: int, name: str, tiny: Tiny
) -> None:
    model = tiny(name, "float64")
    replay = Replay(model)
    expected, donor_z = clean_batch(replay, TOKENS), replay.record_z(donors[:, :-1])
    (found,) = recorded(model, batch=7, workers=workers, donors=donors)
    close = {"rtol": 0, "atol": 1e-5 if name == "gemma2" else 1e-12}  # norms of Gemma are float32
    for kind in ("residual", "z", "attention_out", "mlp_out", "attention_scale", "mlp_scale"):
        own, whole = getattr(found.clean.recording, kind), getattr(expected.recording, kind)
        assert len(own) == len(whole)
        for tensor, other in zip(own, whole, strict=True):
            if other is None:
                assert tensor is None
            else:
                torch.testing.assert_close(tensor, other, **close)
    for own, whole in zip(found.donor_z, donor_z, strict=True):
        torch.testing.assert_close(own, whole, **close)
    for kind in ("scale", "direct_effect"):
        torch.testing.assert_close(getattr(found.clean, kind), getattr(expected, kind), **close)
    torch.testing.assert_close(found.clean.targets.directions, expected.targets.directions)
    torch.testing.assert_close(found.clean.targets.offsets, expected.targets.offsets)


@pytest.mark.parametrize(("donors", "more"), [(WITHIN, 0), (MIXED, 2), (OTHERS, 7)])
def test_no_prompt_is_recorded_twice(
    donors: torch.Tensor, more: int, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, whole = [0], Replay.record_z

    def record_z(self: Replay, tokens: torch.Tensor) -> list[torch.Tensor]:
        done[0] += len(tokens)
        return whole(self, tokens)

    monkeypatch.setattr(Replay, "record_z", record_z)
    recorded(tiny("gpt2"), batch=7, workers=1, donors=donors)
    assert done[0] == more


def test_the_logits_of_the_whole_vocabulary_are_taken_of_one_prompt_a_batch(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, whole = [0], batches.target_logits

    def target_logits(model: Decoder, residual: torch.Tensor, tokens: torch.Tensor) -> object:
        taken[0] += len(tokens)
        return whole(model, residual, tokens)

    monkeypatch.setattr(batches, "target_logits", target_logits)
    found = recorded(tiny("gpt2"), batch=4, workers=2)
    assert taken[0] == len(found) == 2
    assert all(each.clean.conservation_error > 0 for each in found)
    clean_pass(tiny("gpt2"), TOKENS)
    assert taken[0] == 2 + len(TOKENS)


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_the_clean_pass_does_not_depend_on_the_threads(workers: int, tiny: Tiny) -> None:
    model = tiny("llama", "float64")
    whole = clean_pass(model, TOKENS, batch=7)
    told: list[float] = []
    with threads(workers):
        found = clean_pass(model, TOKENS, batch=7, progress=told.append)
        again = clean_pass(model, TOKENS, batch=7)
    for name in ("direct_effect", "scale", "logit", "surprisal", "mean_z"):
        own, other = getattr(found, name), getattr(whole, name)
        torch.testing.assert_close(own, other, rtol=0, atol=1e-6)  # its norms are float32
        assert torch.equal(own, getattr(again, name))
    assert sum(told) == pytest.approx(1)


def test_one_pass_gives_mean_z_too(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    done, whole = [0], Replay._run_network

    def run(self: Replay, tokens: torch.Tensor) -> None:
        done[0] += len(tokens)
        whole(self, tokens)

    monkeypatch.setattr(Replay, "_run_network", run)
    clean_pass(tiny("gpt2"), TOKENS, batch=3)
    assert done[0] == len(TOKENS)
