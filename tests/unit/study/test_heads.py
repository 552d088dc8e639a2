"""`sweep.heads`: which heads it means, what is refused before any job, and what the plan counts."""

from pathlib import Path
from typing import Any

import pytest

from selfrepair.errors import InputError
from selfrepair.study import amounts
from selfrepair.study.config import read_study
from selfrepair.study.heads import swept_heads, swept_note
from selfrepair.study.planning import check_named_heads, plan_model, replay_flop, shape_of
from selfrepair.vocabulary import SECOND_HALF, depth_groups

ROOT = Path(__file__).parents[3]
SMOLLM2 = {"layers": 30, "heads": 9, "d_model": 576, "d_mlp": 1536, "vocabulary": 49152}


def study(name: str = "config.yaml", **sweep: Any) -> dict:
    """A study of a model whose sizes it states."""
    config = read_study(ROOT / "config" / name, schema=ROOT / "config/schema.yaml")
    config["models"]["smollm2"]["shape"] = SMOLLM2
    return config | {"sweep": config["sweep"] | sweep}


@pytest.mark.parametrize("n_layers", [1, 2, 5, 6, 30])
def test_the_second_half_is_that_of_tables_and_claims(n_layers: int) -> None:
    heads = swept_heads("second_half", n_layers, 3)
    layers = depth_groups(n_layers)[SECOND_HALF]
    assert heads == [(layer, head) for layer in layers for head in range(3)]
    assert swept_heads("all", n_layers, 3)[-len(heads) :] == heads
    assert len(swept_heads("all", n_layers, 3)) == 3 * n_layers


def test_named_heads_are_taken_in_order_and_refused_if_there_are_none_such() -> None:
    assert swept_heads([[4, 1], [0, 2], [4, 0]], 5, 3) == [(0, 2), (4, 0), (4, 1)]
    for head in ([5, 0], [0, 3]):
        with pytest.raises(InputError) as error:
            swept_heads([[0, 0], head], 5, 3)
        assert str(error.value) == (
            f"sweep.heads: {head} is not one of 5 layers x 3 heads, counted from 0"
        )


def test_a_note_counts_the_heads_unless_it_is_every_one() -> None:
    assert swept_note("all", 5, 3) == []
    assert swept_note([[layer, head] for layer in range(5) for head in range(3)], 5, 3) == []
    (half,), (named,) = swept_note("second_half", 5, 3), swept_note([[4, 1]], 5, 3)
    assert half.startswith("The sweeps ablated 9 of 15 heads, those of the second half of the")
    assert named.startswith("The sweeps ablated 1 of 15 heads, those that the config names")


@pytest.mark.parametrize(
    ("section", "key", "message"),
    [
        ("sweep", "heads", "sweep.heads, model smollm2: [30, 0] is not one of 30 layers x 9 heads"),
        ("experiments", "optimal_heads", "experiments.optimal_heads, model smollm2: [30, 0] is"),
        ("models", "chosen_heads", "models.smollm2.chosen_heads: [30, 0] is not one of 30 layers"),
    ],
)
def test_heads_that_a_model_has_not_are_refused_where_its_sizes_are_known(
    section: str, key: str, message: str
) -> None:
    config = study()
    check_named_heads(config)
    place = config[section]["smollm2"] if section == "models" else config[section]
    place[key] = [[29, 8], [30, 0]]
    with pytest.raises(InputError) as error:
        check_named_heads(config)
    assert str(error.value).startswith(message)
    unknown = {"smollm2": {"name": "owner/not-here", "chosen_heads": [[30, 0]], "resources": {}}}
    check_named_heads(config | {"models": unknown})


def test_the_plan_counts_the_heads_that_are_swept() -> None:
    every, half, one = study(), study(heads="second_half"), study(heads=[[15, 2]])
    shape = shape_of(every["models"]["smollm2"], every)
    assert shape is not None
    positions = amounts.replayed_of_sweep(every, "resample")
    layers = range(15, 30)
    expected = positions * sum(9 * shape.flop_of_head(layer) for layer in layers)
    assert replay_flop(shape, half, "resample") == pytest.approx(expected)
    assert replay_flop(shape, one, "resample") == positions * shape.flop_of_head(15)
    sizes = [amounts.sweep_bytes(shape, config, "resample", 64) for config in (every, half, one)]
    assert sizes[0] == 2 * sizes[1] == 270 * sizes[2]
    # Five drawn prompts and three tokens are in at most eight prompts, and no other is recorded.
    assert amounts.recorded(shape, every, "resample") == pytest.approx(64)
    assert 7 < amounts.recorded(shape, one, "resample") < 8
    plans = [plan_model("smollm2", config) for config in (every, half, one)]
    flop = [plan.flop for plan in plans if plan]
    assert flop == sorted(flop, reverse=True)
    assert len(set(flop)) == 3


def test_a_preview_is_a_fraction_of_the_default_study() -> None:
    """By plan: half a minute on two cores, and one for a model of 500 M parameters (Qwen2.5-0.5B's sizes)."""
    preview = study("preview.yaml")
    qwen = {"layers": 24, "heads": 14, "kv_heads": 2, "d_head": 64, "d_model": 896, "d_mlp": 4864}
    preview["models"]["qwen"] = preview["models"]["smollm2"] | {
        "shape": qwen | {"vocabulary": 151936, "gated": True, "tied": True}
    }
    minutes = [60 * (plan_model(key, preview).hours or 0) for key in ("smollm2", "qwen")]  # type: ignore[union-attr]
    assert 0 < minutes[0] < 0.6
    assert 0.5 < minutes[1] < 1.2
