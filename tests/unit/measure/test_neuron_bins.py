"""Groups of neuron ranks cover all neurons; medians from bins are near the exact ones."""

import numpy as np
import pytest
import torch

from selfrepair.measure.neuron_bins import BINS, EDGES, GROUPS, group_ends, medians


@pytest.mark.parametrize("n_neurons", [1, 40, 128, 1536, 11008])
def test_rank_groups_cover_all_neurons_evenly(n_neurons):
    ends = group_ends(n_neurons).numpy()
    assert len(ends) == min(n_neurons, GROUPS)
    assert ends[-1] == n_neurons
    sizes = np.diff([0, *ends])
    assert sizes.min() >= 1
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("centre", [-3.0, -1e-3, 0.0, 2e-5, 0.2])
def test_medians_from_bins_are_near_the_exact_ones(centre):
    draw = torch.Generator().manual_seed(0)
    values = centre + (0.1 * abs(centre) + 1e-6) * torch.randn(501, generator=draw).double()
    counts = torch.bincount(torch.bucketize(values, EDGES), minlength=BINS)
    exact = float(values.median())
    assert float(medians(counts)) == pytest.approx(exact, rel=0.0171, abs=2e-6)


def test_medians_without_counts_are_missing_and_far_values_stay_at_the_edge():
    assert torch.isnan(medians(torch.zeros(BINS, dtype=torch.int64)))
    far = torch.bincount(torch.bucketize(torch.tensor([1e6]).double(), EDGES), minlength=BINS)
    assert float(medians(far)) == pytest.approx(30.0)
