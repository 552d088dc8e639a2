"""Loss with and without a beginning-of-sequence token: on the same targets, and when to warn."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from selfrepair.measure.bos_trial import PROMPTS, BosTrial, bos_trial
from tiny_models import random_tokens

BOS = 1
TEXT = random_tokens(10, 12)


def losses(model, tokens):
    """Of every token but the first, by the plain model, nats."""
    with torch.no_grad():
        logits = model.network(tokens).logits[:, :-1]
    return cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")


def with_bos(text):
    return torch.cat([torch.full_like(text[:, :1], BOS), text], 1)


@pytest.mark.parametrize("had_bos", [True, False])
def test_both_ways_are_measured_on_the_same_targets(tiny, had_bos):
    model = tiny("gpt2")
    tokens = with_bos(TEXT) if had_bos else TEXT
    found = bos_trial(model, tokens, had_bos=had_bos, bos_token=BOS)
    text = (TEXT if had_bos else TEXT[:, :-1])[:PROMPTS]
    one, other = losses(model, with_bos(text))[:, 1:].mean(1), losses(model, text).mean(1)
    # Measured: 1e-6.
    assert found.with_bos == pytest.approx(float(one.mean()), abs=1e-5)
    assert found.without_bos == pytest.approx(float(other.mean()), abs=1e-5)
    error = float((one - other).std() / PROMPTS**0.5)
    assert found.standard_error == pytest.approx(error, rel=1e-3)
    assert found.prompts == PROMPTS
    assert found.had_bos == had_bos


def test_prompts_without_a_common_target_are_not_tried(tiny):
    short = random_tokens(3, 2)
    assert bos_trial(tiny("gpt2"), short, had_bos=False, bos_token=BOS) is None
    one = bos_trial(tiny("gpt2"), random_tokens(1, 9), had_bos=False, bos_token=BOS)
    assert math.isnan(one.standard_error)
    assert not one.better_the_other_way


@pytest.mark.parametrize(
    ("changes", "better"),
    [
        ({}, True),  # Gemma 3 270M without the token that it wants
        ({"had_bos": True}, False),
        ({"had_bos": True, "with_bos": 5.83, "without_bos": 2.93}, True),
        ({"with_bos": 5.75}, False),  # 0.08 nats
        ({"standard_error": 1.0}, False),
        ({"prompts": 7}, False),
        ({"with_bos": math.nan}, False),
    ],
)
def test_only_what_is_clearly_better_is_warned_of(changes, better):
    usual = {"prompts": 8, "with_bos": 2.93, "without_bos": 5.83, "standard_error": 0.02}
    trial = BosTrial(**({"had_bos": False} | usual | changes))
    assert trial.better_the_other_way == better


def test_the_warning_is_one_line_with_both_losses():
    trial = BosTrial(False, 8, 2.934, 5.826, 0.02)
    line = trial.warning("gemma")
    assert line.startswith("models.gemma: measured without")
    assert "2.93 nats a token with it, 5.83 without" in line
    assert line.endswith("text.bos: always")
    assert "\n" not in line
    assert BosTrial(True, 8, 4.3, 3.43, 0.02).warning("qwen").endswith("text.bos: never")
