"""Claims over models: tallies, values of all models together, and what few models can show."""

import math

import numpy as np
import polars as pl
import pytest

from selfrepair.claims.claims import (
    CLAIMS,
    CLAIMS_OVER_MODELS,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
)
from selfrepair.claims.judge import judge
from selfrepair.claims.over_models import (
    FEW_MODELS,
    ON_ALL,
    ON_NONE,
    ON_SOME,
    SCHEMA,
    drawn,
    judge_over_models,
    rank_agreement,
    slope_on,
)
from selfrepair.claims.study_models import StudyModel
from selfrepair.vocabulary import LAST_BUT_ONE, SECOND_HALF

BY_ID = {claim.id: claim for claim in CLAIMS_OVER_MODELS}
GROWS, NORM, EVERY = "repair_grows_with_size", "norm_restores_over_models", "every_model_repairs"


def by_depth(models, *, width=0.02):
    """The table by depth; models: by title, self-repair, restored and norm's share, direct effect, heads."""
    rows = []
    for model, (repair, restored, norm, effect, heads) in models.items():
        for group in (SECOND_HALF, LAST_BUT_ONE, "last quarter"):
            right = LAST_BUT_ONE if group == LAST_BUT_ONE else SECOND_HALF
            values = {
                "self_repair": repair if right == SECOND_HALF else 9.0,
                "restored_share": restored if right == SECOND_HALF else 9.0,
                "from_norm_share": norm if right == LAST_BUT_ONE else 9.0,
                "direct_effect": effect if right == LAST_BUT_ONE else 9.0,
            }
            for ablation, selection in (("resample", "top"), ("zero", "top"), ("resample", "all")):
                here = (ablation, selection) == ("resample", "top")
                row = {"model": model, "ablation": ablation, "selection": selection}
                row |= {"depth": group, "n_heads": heads}
                for name, value in values.items():
                    value = value if here else -7.0
                    row |= {
                        name: value,
                        f"{name}_low": value - width,
                        f"{name}_high": value + width,
                    }
                rows.append(row)
    return pl.DataFrame(rows)


def tallied(*verdicts):
    """Claims of models with these verdicts, as far as a tally reads them."""
    names = ("id", "claim", "source", "measured", "unit", "figure")
    row = dict.fromkeys(names, "x")
    rows = [row | {"model": model, "verdict": verdict} for model, verdict in verdicts]
    return pl.DataFrame(rows)


def over(models, *, sizes=None, controls=(), claims=None, width=0.02):
    titles = list(models)
    sizes = sizes or [10 ** (8 + n) for n in range(len(titles))]
    told = [
        StudyModel(title, titles[0] if title in controls else None, size)
        for title, size in zip(titles, sizes, strict=True)
    ]
    claims = tallied(*((title, SUPPORTED) for title in titles)) if claims is None else claims
    table = judge_over_models(claims, by_depth(models, width=width), told)
    assert table.schema == SCHEMA
    return {row["id"]: row for row in table.to_dicts()}


GROWING = {
    "a": (0.4, 0.3, 0.1, 1.0, 9),
    "b": (0.3, 0.4, 0.2, 2.0, 9),
    "c": (0.5, 0.5, 0.3, 4.0, 4),
    "d": (0.6, 0.6, 0.4, 1.0, 2),
}


def test_every_claim_is_tallied_over_the_models_that_are_no_controls(depth, summaries):
    claims = judge(depth, summaries, {"b": "a"})
    assert dict(claims.select("model", "control_of").unique().iter_rows()) == {"a": None, "b": "a"}
    alone = judge_over_models(claims, depth, [StudyModel("a"), StudyModel("b", "a")])
    both = judge_over_models(claims, depth, [StudyModel("a"), StudyModel("b")])
    ids = [*BY_ID, *(claim.id for claim in CLAIMS)]
    assert alone["id"].to_list() == both["id"].to_list() == ids
    for table, models in ((alone, 1), (both, 2)):
        counted = table.tail(len(CLAIMS))
        assert set(counted["n_models"]) == {models}
        found = counted.select("n_supported", "n_undecided", "n_not_supported").sum_horizontal()
        assert found.to_list() == [models] * len(CLAIMS)
    verdict = claims.filter(model="a", id=CLAIMS[0].id)["verdict"].item()
    assert alone.filter(id=CLAIMS[0].id)["n_supported"].item() == (verdict == SUPPORTED)


@pytest.mark.parametrize(
    ("verdicts", "counts", "verdict"),
    [
        ((SUPPORTED, SUPPORTED), (2, 0, 0), ON_ALL),
        ((SUPPORTED, UNDECIDED), (1, 1, 0), ON_SOME),
        ((NOT_SUPPORTED, SUPPORTED), (1, 0, 1), ON_SOME),
        ((NOT_SUPPORTED, UNDECIDED), (0, 1, 1), ON_NONE),
    ],
)
def test_a_tally_counts_verdicts(verdicts, counts, verdict):
    models = {"a": GROWING["a"], "b": GROWING["b"], "c": GROWING["c"]}
    claims = tallied(*zip("abc", (*verdicts, NOT_SUPPORTED), strict=True))
    row = over(models, controls="c", claims=claims)["x"]
    assert (row["n_supported"], row["n_undecided"], row["n_not_supported"]) == counts
    assert (row["verdict"], row["n_models"], row["value"]) == (verdict, 2, None)


def test_repair_in_every_model_is_that_of_the_weakest():
    row = over(GROWING)[EVERY]
    assert (row["value"], row["low"]) == (pytest.approx(0.3), pytest.approx(0.28))
    assert (row["verdict"], row["n_models"]) == (SUPPORTED, 4)
    assert row["remark"] == "smallest in b"
    weak = GROWING | {"c": (0.01, *GROWING["c"][1:])}
    assert over(weak)[EVERY]["verdict"] == UNDECIDED
    none = GROWING | {"c": (-0.1, *GROWING["c"][1:])}
    assert over(none)[EVERY]["verdict"] == NOT_SUPPORTED
    assert over(none, controls="c")[EVERY]["verdict"] == SUPPORTED


def test_growth_is_a_slope_for_ten_times_the_parameters():
    row = over(GROWING)[GROWS]
    assert row["value"] == pytest.approx(0.1)
    # Normal errors of 0.02 / 1.96: the slope's own are those times 1 / sqrt(sum of squares), 5.
    half = 0.02 / math.sqrt(5)
    assert (row["low"], row["high"]) == pytest.approx((0.1 - half, 0.1 + half), rel=0.03)
    assert row["verdict"] == SUPPORTED  # one order of 24 agrees so well
    assert "rank correlation 1.00, reached by 4 % of all orders of the 4 models" in row["remark"]
    assert "weak evidence" in row["remark"]
    assert "not measured" in row["remark"]


@pytest.mark.parametrize(
    ("restored", "width", "verdict"),
    [
        ((0.3, 0.5, 0.4, 0.6), 0.02, UNDECIDED),  # grows, but four orders of 24 agree as well
        ((0.3, 0.4, 0.5, 0.6), 0.9, UNDECIDED),  # the order of the sizes, by chance of the sample
        ((0.6, 0.5, 0.4, 0.3), 0.02, NOT_SUPPORTED),
    ],
)
def test_growth_needs_both_the_slope_and_the_order(restored, width, verdict):
    models = {m: (v[0], r, *v[2:]) for (m, v), r in zip(GROWING.items(), restored, strict=True)}
    assert over(models, width=width)[GROWS]["verdict"] == verdict


def test_three_models_cannot_support_growth_and_two_say_nothing():
    three = {name: GROWING[name] for name in "abc"}
    row = over(three)[GROWS]
    assert row["low"] > 0
    assert row["verdict"] == UNDECIDED
    assert "17 % of all orders" in row["remark"]
    assert "three models can speak against growth, not for it" in row["remark"]
    row = over(GROWING, controls="cd")[GROWS]
    assert (row["value"], row["verdict"]) == (None, UNDECIDED)
    assert row["remark"].startswith("needs at least 3 models of known size that are no controls")
    assert row["remark"].endswith("there are 2")


def test_many_models_are_not_called_few():
    many = {f"m{n}": (0.4, 0.3 + 0.1 * n, 0.2, 1.0, 5) for n in range(FEW_MODELS)}
    assert "weak evidence" not in over(many)[GROWS]["remark"]


def test_models_without_a_size_or_a_number_are_left_out_and_named():
    rows = over(GROWING, sizes=[10**8, 10**9, None, 10**11])
    assert rows[GROWS]["n_models"] == 3
    assert rows[GROWS]["remark"].endswith("; left out: c")
    assert rows[EVERY]["n_models"] == 4
    unknown = GROWING | {"b": (math.nan, *GROWING["b"][1:])}
    row = over(unknown)[EVERY]
    assert (row["value"], row["n_models"]) == (pytest.approx(0.4), 3)
    assert row["remark"] == "smallest in a; left out: b"
    assert row["verdict"] == UNDECIDED  # the one left out may be the smallest
    below = {**unknown, "a": (-0.4, *GROWING["a"][1:])}
    assert over(below)[EVERY]["verdict"] == NOT_SUPPORTED


def test_models_of_one_size_say_nothing_of_growth():
    row = over(GROWING, sizes=[10**8] * 4)[GROWS]
    assert (row["value"], row["low"], row["verdict"]) == (None, None, UNDECIDED)
    assert row["remark"] == "all models have one size"


def test_the_norms_share_is_a_ratio_of_means_over_heads_and_models():
    row = over(GROWING)[NORM]
    effects = [heads * effect for *_, effect, heads in GROWING.values()]
    norms = [
        share * effect
        for (_, _, share, _, _), effect in zip(GROWING.values(), effects, strict=True)
    ]
    assert row["value"] == pytest.approx(sum(norms) / sum(effects))
    assert row["low"] < row["value"] < row["high"]
    assert row["high"] - row["low"] < 0.04  # narrower than any model's
    assert row["verdict"] == SUPPORTED
    assert row["remark"] == "24 heads of 4 models, each head counts once"


def test_a_share_of_no_effect_is_undecided():
    """Effects that add up to exactly 0: the share is infinite, its interval a wide one."""
    row = over({"a": (0.4, 0.3, 0.2, 1.0, 5), "b": (0.4, 0.3, 0.5, -1.0, 5)})[NORM]
    assert math.isinf(row["value"])
    assert math.isfinite(row["low"])
    assert row["verdict"] == UNDECIDED


def test_limits_are_those_of_the_same_claim_about_one_model():
    one = {claim.id: claim for claim in CLAIMS}
    for name, of_one in ((NORM, "norm_restores_last_but_one"), (EVERY, "later_layers_repair")):
        limits = (one[of_one].above, one[of_one].below)
        assert (BY_ID[name].above, BY_ID[name].below) == limits


def test_draws_have_the_ends_of_the_intervals_they_are_made_of():
    value, low, high = (np.array(v) for v in ([0.5, 2.0], [0.1, 1.9], [0.6, 2.9]))
    draws = drawn(value, low, high)
    found = np.quantile(draws, [0.025, 0.5, 0.975], axis=0)
    assert np.allclose(found, [low, value, high], atol=0.03)
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.03


def test_a_slope_is_that_of_least_squares():
    sizes, values = np.array([1.0, 2.0, 4.0]), np.array([[0.1, 0.5, 0.3], [1.0, 0.0, 2.0]])
    for row, slope in zip(values, slope_on(sizes, values), strict=True):
        assert slope == pytest.approx(np.polyfit(sizes, row, 1)[0])
    assert math.isnan(slope_on(np.array([1.0, 1.0]), np.array([0.0, 1.0])))


@pytest.mark.parametrize(
    ("values", "correlation", "chance"),
    [
        ([1, 2, 3, 4], 1.0, 1 / 24),
        ([1, 3, 2, 4], 0.8, 4 / 24),
        ([4, 3, 2, 1], -1.0, 1.0),
        ([1, 1, 1, 1], math.nan, 1.0),
    ],
)
def test_rank_agreement_is_spearmans_and_its_exact_chance(values, correlation, chance):
    found = rank_agreement(np.array([1.0, 2.0, 3.0, 40.0]), np.array(values, float))
    assert found == pytest.approx((correlation, chance), nan_ok=True)


def test_orders_of_many_models_are_drawn():
    sizes = np.arange(12.0)
    correlation, chance = rank_agreement(sizes, np.roll(sizes, 3))
    assert correlation < 0.2
    assert 0.2 < chance < 0.8
    assert rank_agreement(sizes, sizes)[1] < 1e-3


def test_the_rule_of_growth_tells_both_parts():
    rule = BY_ID[GROWS].rule()
    assert rule.startswith("above 0 % (no growth is 0); supported only if")
    assert "at most 5 % of their orders" in rule
