"""The mixture of sources: right in every prefix, and streams that do not disturb each other."""

import numpy as np

from selfrepair.text.mixture import deal_sources, generator_of


def test_mixture_follows_the_weights_in_every_prefix():
    sources = {"a": {"weight": 3}, "b": {"weight": 1}}
    dealt = deal_sources(sources, 40)
    assert dealt.count(0) == 30
    for size in range(1, 41):
        assert abs(dealt[:size].count(0) - 0.75 * size) < 1


def test_more_prompts_go_on_where_fewer_end():
    sources = {"a": {"weight": 3}, "b": {"weight": 1}, "c": {"weight": 0.5}}
    assert deal_sources(sources, 60)[:25] == deal_sources(sources, 25)


def test_random_numbers_depend_on_seed_and_name_alone():
    draws = {
        (seed, name): generator_of(seed, name).permutation(50)
        for seed in (0, 1)
        for name in ("a", "b")
    }
    assert np.array_equal(draws[0, "a"], generator_of(0, "a").permutation(50))
    assert len({tuple(draw) for draw in draws.values()}) == 4
