"""What a number format costs is told of tokens that may be selected, and of no other."""

import torch

from selfrepair.measure.precision import differences
from selfrepair.measure.sweep_result import PER_HEAD, SweepResult

SHAPE = (2, 5, 3, 2)


def result(values):
    arrays = {name: values.clone() for name in ("direct_effect", *PER_HEAD)}
    return SweepResult(
        **arrays, scale=values[..., 0, 0], conservation_error=0.0, decomposition_error=0.0
    )


def test_differences_begin_at_the_first_position_that_may_be_selected():
    exact, own = torch.ones(SHAPE), torch.ones(SHAPE)
    own[:, 0] = 9.0  # the position of a beginning-of-sequence token
    own[:, 3] = 1.5
    every = differences(result(own), result(exact), [(0, 0), (2, 1)])
    assert every["self_repair"] == {"largest": 8.0, "mean": 8.5 / 5, "reference_mean": 1.0}
    some = differences(result(own), result(exact), [(0, 0), (2, 1)], first_position=1)
    assert some["self_repair"] == {"largest": 0.5, "mean": 0.5 / 4, "reference_mean": 1.0}
