"""Sums over prompts and histograms: against plain loops, from dense arrays and from instances."""

import numpy as np
import pytest
import torch

import selfrepair
import tiny_models
from selfrepair.measure.prompt_sums import (
    BINS,
    LARGEST,
    SUMS,
    UNIT,
    histogram_quantiles,
    histograms,
    instance_sums,
    summed,
    token_values,
)
from selfrepair.measure.prompt_sums import joined as joined_sums
from selfrepair.measure.sweep_result import joined
from selfrepair.vocabulary import EFFECTS, SHARED_EFFECTS, depth_groups

LEVELS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@pytest.fixture(scope="module")
def swept(tiny):
    """A float64 sweep of a tiny model, and tokens called top: some at random."""
    tokens, donors = (tiny_models.random_tokens(6, 12, seed=seed) for seed in (1, 2))
    result = selfrepair.sweep(tiny("gpt2", "float64"), tokens, donors=donors)
    draw = torch.Generator().manual_seed(0)
    return result, torch.rand(result.self_repair.shape, generator=draw) < 0.2


def test_sums_are_those_of_a_loop_over_tokens(swept):
    result, top = swept
    stored = summed(result, top, first_position=1)
    prompts, positions, n_layers, n_heads = top.shape
    for prompt in range(prompts):
        for layer in range(n_layers):
            for head in range(n_heads):
                for selection in ("top", "all"):
                    sums = dict.fromkeys((n for n in SUMS if "post_norms" not in n), 0.0)
                    for position in range(positions):
                        if not (
                            top[prompt, position, layer, head] if selection == "top" else position
                        ):
                            continue
                        one = {
                            n: float(getattr(result, n)[prompt, position, layer, head])
                            for n in EFFECTS
                        }
                        sums["tokens"] += 1
                        sums["with_effect"] += one["direct_effect"] != 0
                        sums["positive"] += one["direct_effect"] > 0
                        sums["over_corrected"] += (
                            one["direct_effect"] > 0 and one["delta_logit"] > 0
                        )
                        sums["self_repair_squares"] += one["self_repair"] ** 2
                        for name in EFFECTS:
                            if f"{selection}.{name}" in stored:
                                sums[name] += one[name]
                                if name in SHARED_EFFECTS:
                                    share = one[name] / one["direct_effect"]
                                    sums[f"{name}_clipped"] += min(max(share, 0.0), 1.0)
                    for name, value in sums.items():
                        found = stored[f"{selection}.{name}"][prompt, layer, head]
                        assert float(found) == pytest.approx(value, rel=1e-12, abs=1e-12), name


def test_what_is_stored_does_not_grow_with_tokens(swept):
    result, top = swept
    stored = summed(result, top)
    prompts, _, n_layers, n_heads = top.shape
    effects, groups = len(SHARED_EFFECTS) - 1, len(depth_groups(n_layers))
    assert not any("post_norms" in name for name in stored)  # GPT-2 has none
    for name, values in stored.items():
        if name.endswith(".bins"):
            assert (values.dtype, values.shape) == (torch.int32, (n_layers, n_heads, effects, BINS))
        elif name.endswith(".group_tokens"):
            assert (values.dtype, values.shape) == (torch.int32, (prompts, groups))
        else:
            assert (values.dtype, values.shape) == (torch.float64, (prompts, n_layers, n_heads))


def test_tokens_of_a_group_are_counted_once(swept):
    result, top = swept
    found = summed(result, top, first_position=2)
    for index, layers in enumerate(depth_groups(top.shape[2]).values()):
        expected = top[:, :, layers].any(3).any(2).sum(1)
        assert torch.equal(found["top.group_tokens"][:, index].long(), expected)
        assert (found["all.group_tokens"][:, index] == top.shape[1] - 2).all()


def test_shards_add_up_to_the_whole(swept):
    result, top = swept
    whole = summed(result, top)
    parts = [_prompts(result, slice(0, 4)), _prompts(result, slice(4, 6))]
    assert torch.equal(joined(parts).self_repair, result.self_repair)
    found = joined_sums([summed(parts[0], top[:4]), summed(parts[1], top[4:])])
    assert found.keys() == whole.keys()
    for name, values in whole.items():
        assert found[name].dtype == values.dtype
        assert torch.equal(found[name], values), name


def test_instances_have_the_sums_of_the_dense_arrays(swept):
    result, top = swept
    stored = summed(result, top)
    for layer in range(top.shape[2]):
        prompt, position, head = top[:, :, layer].nonzero(as_tuple=True)
        rows = {name: getattr(result, name)[prompt, position, layer, head] for name in EFFECTS}
        rows |= {"prompt": prompt, "head": head}
        found = instance_sums(rows, prompts=len(top), n_heads=top.shape[3])
        assert set(found) == set(SUMS)
        assert (found["from_post_norms"] == 0).all()
        for name in set(SUMS) - {"from_post_norms", "from_post_norms_clipped"}:
            expected = stored[f"top.{name}"][:, layer]
            assert torch.allclose(found[name], expected, rtol=1e-12, atol=1e-12), name


def test_missing_values_and_direct_effects_of_zero():
    nan = torch.nan
    arrays = {name: torch.tensor([1.0, 1.0, nan]) for name in EFFECTS}
    arrays["direct_effect"] = torch.tensor([0.0, -2.0, 3.0])
    values = token_values(arrays)
    assert values["with_effect"].tolist() == [0, 1, 1]
    assert values["self_repair_clipped"][:2].tolist() == [0, 0]
    assert values["over_corrected"][:2].tolist() == [0, 0]
    for name in ("self_repair", "self_repair_clipped", "over_corrected", "self_repair_squares"):
        assert values[name][2].isnan(), name
    # No ratio where the direct effect is 0 or the effect is missing.
    counts = histograms(
        {name: each.reshape(1, 3, 1) for name, each in arrays.items()},
        torch.ones(1, 3, 1, dtype=torch.bool),
    )
    assert counts.sum(2).tolist() == [[1] * len(SHARED_EFFECTS)]


@pytest.mark.parametrize("n", [1, 2, 40, 5000])
def test_quantiles_are_off_by_half_a_bin_at_most(n):
    """The error that docs/method.md states: 1.5 % of sqrt(r^2 + UNIT^2), of heavy-tailed ratios."""
    draw = np.random.default_rng(n)
    ratios = draw.normal(0.3, 0.5, (n, 3)) / draw.normal(1, [0.1, 1, 3], (n, 3))
    ratios = np.clip(ratios, -100, 100)
    found = histogram_quantiles(_counts(ratios), LEVELS)
    # numpy goes between two values in order: each of them is known to 1.5 %.
    lower, upper = (
        np.quantile(ratios, LEVELS, axis=0, method=method) for method in ("lower", "higher")
    )
    bound = 0.0151 * np.maximum(np.hypot(lower, UNIT), np.hypot(upper, UNIT))
    assert (np.abs(found - np.quantile(ratios, LEVELS, axis=0)) <= bound).all()


def test_zero_stays_exactly_zero_and_what_is_beyond_the_bins_is_in_the_last():
    assert (histogram_quantiles(_counts(np.zeros((7, 1))), LEVELS) == 0).all()
    assert np.isnan(histogram_quantiles(np.zeros((1, BINS), dtype=np.int32), LEVELS)).all()
    far = histogram_quantiles(_counts(np.array([[-np.inf], [0.0], [1e30]])), (0.0, 0.5, 1.0))[:, 0]
    assert far[1] == 0
    assert -far[0] == far[2] == pytest.approx(LARGEST, rel=0.016)


def _counts(ratios):
    """A histogram of ratios [token, head], through effects whose direct effect is 1."""
    effect = torch.from_numpy(ratios)[None]
    arrays = {"direct_effect": torch.ones_like(effect), "self_repair": effect}
    return histograms(arrays, torch.ones(effect.shape, dtype=torch.bool))[:, 0].numpy()


def _prompts(result, rows):
    from dataclasses import fields, replace

    arrays = {f.name: getattr(result, f.name) for f in fields(result)}
    return replace(result, **{n: v[rows] for n, v in arrays.items() if isinstance(v, torch.Tensor)})
