"""Claims are judged from the right rows of the tables."""

import json
import math

import polars as pl
import pytest

from selfrepair.claims.claims import CLAIMS, UNDECIDED, Depth, Summary
from selfrepair.claims.judge import estimate, judge, metrics, post_norm_notes
from selfrepair.errors import InputError


def test_one_row_per_claim_and_model_with_the_value_of_its_row(claims, depth_columns):
    assert claims.height == 2 * len(CLAIMS)
    values = {row["id"]: row for row in claims.filter(model="b").iter_rows(named=True)}
    expected = 0.1 * depth_columns.index("restored_share") + 0.01
    assert values["repair_is_imperfect"]["value"] == pytest.approx(expected)
    assert values["repair_is_imperfect"]["low"] == pytest.approx(expected - 0.05)
    share = 0.1 * depth_columns.index("from_norm_share") + 0.01
    assert values["norm_restores_second_half"]["value"] == pytest.approx(share)
    assert values["norm_restores_last_but_one"]["value"] == pytest.approx(share + 0.5)
    clipped = 0.1 * depth_columns.index("from_norm_share_clipped") + 0.01
    assert values["norm_restores_second_half"]["clipped"] == pytest.approx(clipped)
    assert values["later_layers_repair"]["clipped"] is None
    from_summaries = [c.id for c in CLAIMS if isinstance(c.value, Summary)]
    for i, name in enumerate(from_summaries):
        assert values[name]["value"] == i
        assert values[name]["n_tokens"] == 70


def test_what_was_not_measured_is_undecided_and_said_so(depth, summaries):
    claims = judge(depth.filter(model="a"), summaries.filter(pl.col("experiment") != "E8"))
    row = claims.filter(id="few_neurons_repair").row(0, named=True)
    assert row["value"] is None
    assert row["verdict"] == UNDECIDED
    assert "value" not in metrics(claims)["a"]["few_neurons_repair"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_verdict_follows_from_a_value_that_is_no_number(depth, summaries, value):
    """Even if its interval is one."""
    claim = next(claim for claim in CLAIMS if isinstance(claim.value, Depth))
    wrong = depth.with_columns(pl.lit(value).alias(claim.value.column))
    before, after = (
        judge(each, summaries).filter(id=claim.id)["verdict"] for each in (depth, wrong)
    )
    assert UNDECIDED not in before
    assert set(after) == {UNDECIDED}


def test_metrics_are_scalars_without_gaps(claims):
    found = json.loads(json.dumps(metrics(claims), allow_nan=False))
    assert set(found) == {"a", "b"}
    for entries in found.values():
        for entry in entries.values():
            assert all(isinstance(value, (int, float, str)) for value in entry.values())


@pytest.mark.parametrize(
    ("unit", "value", "low", "high", "text"),
    [
        ("share", 0.561, 0.52, 0.6, "56 % [52, 60]"),
        ("logits", 0.39, 0.36, 0.42, "0.39 [0.36, 0.42] logits"),
        ("ratio", 1.6, 1.38, 1.79, "1.60 [1.38, 1.79]"),
        ("logits", 0.39, None, None, "0.39 logits"),
        ("share", None, None, None, "not measured"),
    ],
)
def test_a_value_is_written_with_its_interval_and_unit(unit, value, low, high, text):
    row = {"unit": unit, "value": value, "low": low, "high": high}
    assert estimate(row) == text
    clipped = {"unit": unit} | dict(
        zip(("clipped", "clipped_low", "clipped_high"), (value, low, high), strict=True)
    )
    assert estimate(clipped, clipped=True) == ("" if value is None else text)


def test_no_models_are_refused(depth, summaries):
    with pytest.raises(InputError, match="claims: the table by depth has no model"):
        judge(depth.clear(), summaries)


def test_what_post_norms_make_up_for_is_noted_of_models_that_have_them(depth):
    own = (pl.col("model") == "b").cast(pl.Float64)
    names = [f"from_post_norms{part}" for part in ("", "_share", "_share_low", "_share_high")]
    values = dict(zip(names, (1.0, 0.12, 0.1, 0.14), strict=True))
    found = post_norm_notes(depth.with_columns(**{n: own * v for n, v in values.items()}))
    assert set(found) == {"b"}
    assert "make up for 12 % [10, 14] of the direct effect (second half)" in found["b"][0]
