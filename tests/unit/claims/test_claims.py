"""Each claim's rule gives its verdict and says itself in words."""

import math
import subprocess
import sys

import pytest

from selfrepair.catalogue import FIGURES
from selfrepair.claims.claims import CLAIMS, NOT_SUPPORTED, SUPPORTED, UNDECIDED

BY_ID = {claim.id: claim for claim in CLAIMS}


@pytest.mark.parametrize(
    ("claim", "low", "high", "verdict"),
    [
        ("later_layers_repair", 0.1, 0.2, SUPPORTED),
        ("later_layers_repair", -0.1, 0.2, UNDECIDED),
        ("later_layers_repair", -0.2, 0.0, NOT_SUPPORTED),
        ("repair_is_imperfect", 0.5, 0.99, SUPPORTED),
        ("repair_is_imperfect", 0.9, 1.1, UNDECIDED),
        ("repair_is_imperfect", 1.0, 1.2, NOT_SUPPORTED),
        ("norm_restores_second_half", 0.2, 0.5, SUPPORTED),
        ("norm_restores_second_half", 0.1, 0.2, UNDECIDED),
        ("norm_restores_second_half", 0.1, 0.7, UNDECIDED),
        ("norm_restores_second_half", 0.05, 0.1, NOT_SUPPORTED),
        ("norm_restores_second_half", 0.7, 0.8, NOT_SUPPORTED),
        ("later_layers_repair", math.nan, math.nan, UNDECIDED),
        ("later_layers_repair", 0.1, math.nan, UNDECIDED),
        ("later_layers_repair", 0.1, math.inf, UNDECIDED),
        ("repair_is_imperfect", -math.inf, -math.inf, UNDECIDED),
    ],
)
def test_a_verdict_asks_for_the_whole_interval(claim, low, high, verdict):
    assert BY_ID[claim].verdict(low, high) == verdict


def test_the_rule_is_written_in_the_unit_of_the_value():
    assert BY_ID["later_layers_repair"].rule() == "above 0 logits (no repair is 0)"
    assert BY_ID["repair_is_imperfect"].rule() == "below 100 % (full repair is 100 %)"
    rule = BY_ID["norm_restores_second_half"].rule()
    assert rule == "between 15 % and 60 % (within a factor of two of 30 %)"


def test_every_claim_has_a_limit_and_names_its_figure():
    figures = {figure.key for figure in FIGURES}
    assert len(BY_ID) == len(CLAIMS)
    for claim in CLAIMS:
        assert claim.above is not None or claim.below is not None
        assert claim.figure in figures


@pytest.mark.parametrize("module", ["claims", "judge", "page"])
def test_no_torch_and_no_altair_is_loaded(module):
    code = f"import sys, selfrepair.claims.{module}; sys.exit({{'torch', 'altair'}} & {{*sys.modules}} != set())"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
