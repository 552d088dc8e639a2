"""Means and shares of one layer's heads: what counts in which, and what is missing."""

import numpy as np
import pytest
import torch

from selfrepair.measure.prompt_sums import token_values
from selfrepair.tables.bootstrap import prompt_weights
from selfrepair.tables.estimates import resampled_means, with_intervals
from selfrepair.vocabulary import EFFECTS


def of_one_head(**values):
    """Means and columns of one head on four tokens of two prompts; what is not given is zero."""
    arrays = {name: torch.zeros(2, 2, 1) for name in EFFECTS}
    arrays |= {name: torch.tensor(each).reshape(2, 2, 1) for name, each in values.items()}
    sums = {name: each.sum(1).numpy() for name, each in token_values(arrays).items()}
    means = resampled_means(sums, prompt_weights(2, 50, seed=0))
    return means, with_intervals(means, prompts=np.array([2]))


def test_three_shares_that_are_never_mixed():
    _, columns = of_one_head(direct_effect=[1, 1, 1, 5], self_repair=[2, -1, 0.5, 1])
    assert columns["self_repair_share"] == pytest.approx(2.5 / 8)  # a ratio of means
    assert columns["self_repair_share_clipped"] == pytest.approx((1 + 0 + 0.5 + 0.2) / 4)
    _, columns = of_one_head(
        direct_effect=[1, 1, 1, 5], ablated_direct_effect=[0, 0, 1, 2], self_repair=[2, -1, 0.5, 1]
    )
    assert columns["restored_share"] == pytest.approx(2.5 / (8 - 3))


def test_tokens_without_a_direct_effect_have_no_clipped_share():
    _, columns = of_one_head(direct_effect=[0, 1, 1, 1], self_repair=[9, 1, 0, 0])
    assert columns["self_repair_share_clipped"] == pytest.approx(1 / 3)


def test_over_correction_is_of_tokens_with_a_positive_direct_effect():
    _, columns = of_one_head(direct_effect=[1, 2, -1, 3], delta_logit=[1, -1, 1, 0])
    assert columns["over_corrected_share"] == pytest.approx(1 / 3)
    _, columns = of_one_head(direct_effect=[-1, -1, -1, -1], delta_logit=[1, 1, 1, 1])
    assert np.isnan(columns["over_corrected_share"]).all()


def test_spread_is_the_root_of_the_variance_which_is_no_column():
    means, columns = of_one_head(self_repair=[1, 2, 3, 4])
    assert means["self_repair_variance"][0] == pytest.approx(np.var([1, 2, 3, 4], ddof=1))
    assert "self_repair_variance" not in columns
    assert columns["self_repair_sd"] == pytest.approx(np.std([1, 2, 3, 4], ddof=1))
    assert columns["self_repair_noise"] == pytest.approx(np.std([1, 2, 3, 4], ddof=1) / 2.5)
    assert columns["self_repair_noise_low"] <= columns["self_repair_noise_high"]
