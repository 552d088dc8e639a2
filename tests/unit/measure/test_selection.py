"""Which heads and tokens the experiments look at."""

import pytest
import torch

from selfrepair.errors import InputError
from selfrepair.measure.selection import (
    check_heads,
    choose_heads,
    largest_first,
    layer_indices,
    watched_layers,
)
from selfrepair.vocabulary import second_half
from top_masks import top_mask, top_of_every_head


def test_top_mask_marks_the_largest_two_percent_of_each_head():
    effects = torch.randn(4, 50, 3, generator=torch.Generator().manual_seed(0))
    mask = top_mask(effects)
    assert mask.flatten(0, 1).sum(0).tolist() == [4, 4, 4]
    for head in range(3):
        inside, outside = effects[..., head][mask[..., head]], effects[..., head][~mask[..., head]]
        assert inside.min() > outside.max()


def test_positions_before_the_first_are_neither_selected_nor_counted():
    effects = torch.randn(4, 26, 3, 2, generator=torch.Generator().manual_seed(0))
    effects[:, 0] = 99.0  # that of a beginning-of-sequence token
    mask = top_of_every_head(effects, first_position=1)
    assert not mask[:, 0].any()
    assert mask.flatten(0, 1).sum(0).eq(2).all()  # floor(0.02 x 4 x 25), not of 4 x 26
    assert torch.equal(mask[:, 1:], top_of_every_head(effects[:, 1:]))
    assert top_mask(effects[:, :, 0])[:, 0].any()
    with pytest.raises(InputError, match=r"^48 tokens have no top 2%"):
        top_mask(effects[:2, :25, 0], first_position=1)


def test_what_is_not_a_number_comes_last_and_what_is_infinite_stays():
    infinite = torch.tensor([torch.nan, 1.0, torch.inf, -torch.inf, 1.0, -5.0])
    values, order = largest_first(infinite[:, None], 6)
    assert order[:, 0].tolist() == [2, 1, 4, 5, 0, 3]
    assert values[:4, 0].tolist() == [torch.inf, 1.0, 1.0, -5.0]
    assert values[4:, 0].tolist() == [-torch.inf, -torch.inf]


def test_chosen_heads_have_the_largest_means_of_the_second_half():
    means = torch.zeros(4, 2)
    means[0, 1] = 9.0  # not in the second half
    means[2, 0], means[3, 1], means[2, 1] = 1.0, 2.0, 0.8
    chosen = choose_heads(means, 3, first_layer=2, last_layer=3)
    assert chosen == [(3, 1), (2, 0), (2, 1)]
    assert choose_heads(means, 2, first_layer=2, last_layer=2) == [(2, 0), (2, 1)]
    assert len(choose_heads(means, 99, first_layer=2, last_layer=3)) == 4


def test_the_second_half_of_an_odd_number_of_layers_has_the_middle_one():
    assert list(second_half(4)) == [2, 3]
    assert list(second_half(5)) == [2, 3, 4]


@pytest.mark.parametrize(
    ("mlps", "parallel", "expected"),
    [
        ([-1], [False] * 4, ([3], 3)),
        ([-1], [True] * 4, ([3], 2)),  # a parallel MLP does not see its own layer's heads
        ([1, -1], [False] * 4, ([1, 3], 3)),
        ([2], [False] * 4, ([2], 2)),
    ],
)
def test_watched_layers_tell_which_heads_can_be_chosen(mlps, parallel, expected):
    assert watched_layers(mlps, parallel) == expected


@pytest.mark.parametrize(
    ("mlps", "line"),
    [
        ([4], "experiments.mlps: 4 is not one of 4 layers"),
        ([-5], "experiments.mlps: -5 is not one of 4 layers"),
        (
            [0],
            r"experiments.mlps: \[0\] come before every head of the second half \(layers 2 to 3\)",
        ),
        ([], "experiments.mlps: none given"),
    ],
)
def test_mlps_that_cannot_be_watched_are_refused(mlps, line):
    with pytest.raises(InputError, match=line):
        watched_layers(mlps, [False] * 4)


def test_layers_count_from_the_first_or_from_the_last():
    assert layer_indices([-3, -1, 0, 2], 3, name="mlps") == [0, 2, 0, 2]


def test_layers_and_heads_that_do_not_exist_are_refused():
    assert layer_indices([0, -1], 3, name="x") == [0, 2]
    assert check_heads([[1, 2]], 2, 3, name="models.m.heads") == [(1, 2)]
    with pytest.raises(InputError, match=r"models.m.heads: \[2, 0\] is not one of 2 layers x 3"):
        check_heads([[2, 0]], 2, 3, name="models.m.heads")
