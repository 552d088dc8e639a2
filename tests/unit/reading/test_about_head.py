"""Words about a head depend on the sign of its numbers, and say what is missing."""

import polars as pl

from selfrepair.reading.about_head import map_sentences, sentences, stated
from selfrepair.vocabulary import EFFECTS, bounded

TERMS = ("from_heads", "from_mlps", "from_norm")


def row(**changes):
    found = {"ablation": "resample", "n_tokens": 32, "n_prompts": 20}
    for name in (*EFFECTS, *(f"{name}_share" for name in EFFECTS), "over_corrected_share"):
        found |= dict(zip(bounded(name), (0.3, 0.2, 0.4), strict=True))
    return found | changes


def test_repair_none_and_damage():
    below = {"self_repair": -0.3, "self_repair_low": -0.4, "self_repair_high": -0.2}
    text = {
        "Later parts make up for 0.30 [0.20, 0.40] logits (30 % [20, 40] of the direct": {},
        "Self-repair is 0.30 [-0.10, 0.40] logits (30 % [": {"self_repair_low": -0.1},
        "Later parts add to the loss: self-repair is -0.30 [-0.40, -0.20] logits (": below,
    }
    for words, changes in text.items():
        assert words in sentences(row(**changes), [], TERMS)[1]


def test_a_share_of_no_direct_effect_is_not_given():
    said = sentences(row(direct_effect_low=-0.1), [], TERMS)[1]
    assert "so a share of it says little" in said
    assert "30 % [20, 40] of the direct effect" not in said


def test_what_rests_on_little_or_nothing():
    assert "too narrow" in sentences(row(n_prompts=4), [], TERMS)[-1]
    assert "too narrow" not in sentences(row(), [], TERMS)[-1]
    (only,) = sentences(row(n_tokens=0), [], TERMS)
    assert only.startswith("Not measured")
    assert stated(row(self_repair=float("nan")), "self_repair") == "not measured"
    nan = float("nan")
    alone = row(self_repair_low=nan, self_repair_high=nan)
    assert stated(alone, "self_repair") == "0.30 logits"
    assert "Self-repair is 0.30 logits (" in sentences(alone, [], TERMS)[1]


def test_parts_whose_interval_includes_0_are_not_named():
    keys = {"component_layer": [5, None, 5, 4], "component_head": [None, None, 2, 1]}
    parts = pl.DataFrame(
        {"kind": ["mlp", "final norm", "head", "head"], "n_components": [1] * 4, **keys}
        | {
            "mean": [0.5, 0.4, 0.3, -0.2],
            "low": [0.4, 0.3, -0.1, -0.3],
            "high": [0.6, 0.5, 0.7, -0.1],
        }
    )
    (line,) = map_sentences(parts, pl.DataFrame())
    assert "the MLP of layer 5 (0.50 [0.40, 0.60] logits) and the final norm (0.40" in line
    assert "the largest below 0 is head L4H1 (-0.20 [-0.30, -0.10] logits)" in line
    assert "L5H2" not in line
    (line,) = map_sentences(parts[2:3], pl.DataFrame())
    assert "none is above 0" in line
