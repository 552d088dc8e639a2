"""Resample partners: derangements, fixed by the seed, all equally likely."""

from collections import Counter

import pytest
import torch

from selfrepair import InputError
from selfrepair.text.partners import sample_derangement


@pytest.mark.parametrize("count", range(2, 51))
def test_partners_are_a_derangement_fixed_by_the_seed(count: int) -> None:
    first, second = (
        sample_derangement(count, torch.Generator().manual_seed(count)) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert sorted(first.tolist()) == list(range(count))
    assert not bool((first == torch.arange(count)).any())


@pytest.mark.parametrize("count", [16, 17, 18, 31, 32, 33, 50])
def test_partners_are_within_blocks_of_sixteen_prompts(count: int) -> None:
    partners = sample_derangement(count, torch.Generator().manual_seed(count))
    block = torch.arange(count) // 16
    if count % 16 == 1:
        block[-1] -= 1  # a single prompt would have no partner
    assert torch.equal(block[partners], block)


def test_partners_of_whole_blocks_do_not_depend_on_later_prompts() -> None:
    short, long = (sample_derangement(n, torch.Generator().manual_seed(0)) for n in (32, 80))
    assert torch.equal(short, long[:32])


def test_partners_differ_between_seeds() -> None:
    drawn = [sample_derangement(20, torch.Generator().manual_seed(seed)) for seed in range(10)]
    assert len({tuple(partners.tolist()) for partners in drawn}) == 10


@pytest.mark.parametrize("count", [0, 1])
def test_one_prompt_has_no_partner(count: int) -> None:
    with pytest.raises(InputError, match=rf"{count} prompt\(s\).*at least 2"):
        sample_derangement(count, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("count", "derangements"), [(3, 2), (4, 9)])
def test_partners_are_uniform(count: int, derangements: int) -> None:
    generator, draws = torch.Generator().manual_seed(0), 1800
    seen = Counter(
        tuple(sample_derangement(count, generator).tolist()) for _ in range(draws)
    ).values()
    assert len(seen) == derangements
    expected = draws / derangements
    # Five standard deviations of a binomial count; measured: 190 to 209 of 200 expected.
    assert max(abs(n - expected) for n in seen) < 5 * expected**0.5
