"""Expected amounts against many draws of tokens, and against what a config asks for."""

import copy
from pathlib import Path

import numpy as np
import pytest

from selfrepair.model.sizes import LENGTH_STEP
from selfrepair.study import amounts
from selfrepair.study.config import read_study

ROOT = Path(__file__).parents[3]
DEFAULT = read_study(ROOT / "config/config.yaml", schema=ROOT / "config/schema.yaml")
PROMPTS, POSITIONS = 13, 43


def drawn(tokens: int, times: int) -> np.ndarray:
    """Ends of the last token of each prompt, 0 without one, over many draws: [draw, prompt]."""
    draw = np.random.default_rng(0)
    token = draw.integers(0, PROMPTS * POSITIONS, (times, tokens))
    ends = np.zeros((times, PROMPTS), dtype=int)
    np.maximum.at(ends, (np.arange(times)[:, None], token // POSITIONS), token % POSITIONS + 1)
    return ends


@pytest.mark.parametrize("tokens", [1, 4, 40])
def test_expected_rows_and_positions_are_those_of_many_draws(tokens):
    ends = drawn(tokens, 4000)
    rows = (ends > 0).sum(1)
    positions = np.minimum(-(-ends // LENGTH_STEP) * LENGTH_STEP, POSITIONS).sum(1)
    for found, expected in (
        (rows, amounts.rows(tokens, PROMPTS)),
        (positions, amounts.replayed(tokens, PROMPTS, POSITIONS)),
    ):
        error = found.std() / np.sqrt(len(found))
        assert abs(found.mean() - expected) < 4 * error + 1e-9


def test_one_token_is_one_row_that_ends_in_the_middle():
    assert amounts.rows(1, 64) == pytest.approx(1)
    # Half of 127, and half a step.
    assert amounts.replayed(1, 64, 127) == pytest.approx(64 + 7.5, abs=0.1)
    assert amounts.replayed(10**6, 3, 127) == pytest.approx(3 * 127)
    assert amounts.rows(5, 1) == 1


def test_no_more_top_tokens_are_drawn_than_there_are():
    config = copy.deepcopy(DEFAULT)
    config["ablations"]["zero"] |= {"prompts": 10, "random_tokens_per_head": 2}
    config["ablations"]["zero"]["prompts_per_head"] = None
    for asked, top in ((6, 6), (None, 26), (900, 26)):  # 2 % of 1,270, rounded up
        config["ablations"]["zero"]["tokens_per_head"] = asked
        assert amounts.drawn(config, "zero") == top + 2


def test_a_sweep_of_all_tokens_replays_every_position():
    config = copy.deepcopy(DEFAULT)
    assert amounts.replayed_of_sweep(config, "resample") < 9 * 127
    config["sweep"]["tokens"] = "all"
    assert amounts.replayed_of_sweep(config, "resample") == 64 * 127


def test_drawn_prompts_are_replayed_up_to_their_last_top_token():
    """Against draws: top tokens anywhere, prompts drawn of those that hold any, random tokens beside them."""
    config = copy.deepcopy(DEFAULT)
    asked = config["ablations"]["resample"]
    asked |= {"prompts": 20, "tokens_per_head": None, "random_tokens_per_head": 0}
    asked["prompts_per_head"] = 3
    positions, generator = 127, np.random.default_rng(0)
    top = amounts.capped(None, 20, positions)
    tokens, replayed = [], []
    for _ in range(3000):
        token = generator.choice(20 * positions, top, replace=False)
        drawn = generator.choice(np.unique(token // positions), 3, replace=False)
        kept = token[np.isin(token // positions, drawn)]
        tokens.append(len(kept))
        last = np.array([kept[kept // positions == each].max() % positions + 1 for each in drawn])
        replayed.append(np.minimum(-(-last // LENGTH_STEP) * LENGTH_STEP, positions).sum())
    assert amounts.drawn(config, "resample") == pytest.approx(np.mean(tokens), abs=1)
    assert amounts.replayed_of_sweep(config, "resample") == pytest.approx(
        np.mean(replayed), rel=0.02
    )
    asked["random_tokens_per_head"] = 4
    more = amounts.replayed_of_sweep(config, "resample") - np.mean(replayed)
    assert 0 < more <= amounts.replayed(4, 20, positions) * 1.05


def test_a_draw_of_more_prompts_than_hold_a_token_takes_all():
    config = copy.deepcopy(DEFAULT)
    asked = config["ablations"]["zero"] | {"prompts_per_head": None, "tokens_per_head": None}
    config["ablations"]["zero"] = asked
    whole = amounts.drawn(config, "zero"), amounts.replayed_of_sweep(config, "zero")
    asked["prompts_per_head"] = asked["prompts"]
    assert (amounts.drawn(config, "zero"), amounts.replayed_of_sweep(config, "zero")) == whole
    asked["tokens_per_head"] = 2
    assert amounts.drawn(config, "zero") == 2
