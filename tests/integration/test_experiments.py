"""Neurons and iterative inference against the hooked model, run whole, on every architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from selfrepair.measure.feed_back import feed_back
from selfrepair.measure.iterative import iterative_inference
from selfrepair.measure.neurons import neuron_repair, seen_by
from selfrepair.measure.refeed import SUMS, refeed
from selfrepair.testing.reference import hooked
from selfrepair.vocabulary import FED_BACK
from tiny_models import FLOAT64, SUPPORTED, random_tokens
from top_masks import top_mask

PROMPTS, LENGTH = 4, 18
TOKENS = random_tokens(PROMPTS, LENGTH)
DONORS = random_tokens(PROMPTS, LENGTH, seed=2)
# Largest difference measured: 2e-6 in float32, 1e-14 in float64 where the hooked code stays in it.
BOUND = {"float32": 5e-5, "float64": 1e-10}
CASES = [(name, "float32") for name in SUPPORTED] + [(name, "float64") for name in FLOAT64]


class Hooked:
    """The hooked model, run whole: activations by name, and centred target logits of writes."""

    def __init__(self, model: Any) -> None:
        self.model = model
        names = ["ln_final.hook_in"]
        for layer in range(model.n_layers):
            names += [f"blocks.{layer}.hook_in", f"blocks.{layer}.attn.o.hook_in"]
            names += [f"blocks.{layer}.mlp.out.hook_in", f"blocks.{layer}.mlp.hook_out"]
        self.names = names
        self.clean = self.run()
        residual = self.clean["ln_final.hook_in"]
        if model.final_norm.centred:
            residual = residual - residual.mean(-1, keepdim=True)
        self.scale = (residual.pow(2).mean(-1) + model.final_norm.eps).sqrt()

    def run(self, *hooks: Any, tokens: Tensor = TOKENS) -> dict[str, Tensor]:
        cache: dict[str, Tensor] = {}

        def keep(value: Tensor, hook: Any) -> None:
            cache[hook.name] = value.detach().clone()

        names = set(self.names)
        kept = [(name, keep) for name in names]
        with torch.no_grad():
            hooked(self.model).run_with_hooks(tokens, fwd_hooks=[*hooks, *kept])
        return cache

    def ablated(self, layer: int, head: int) -> dict[str, Tensor]:
        name = f"blocks.{layer}.attn.o.hook_in"
        donor = self.run(tokens=DONORS)[name]

        def replace(value: Tensor, hook: Any) -> Tensor:
            value = value.clone()
            value[..., head, :] = donor[..., head, :]
            return value

        return self.run((name, replace))

    def effect(self, write: Tensor, prompt: int, position: int) -> Tensor:
        """Centred target logit of a write [..., d_model] under the frozen clean norm."""
        model = self.model
        if model.final_norm.centred:
            write = write - write.mean(-1, keepdim=True)
        normed = model.final_norm.gain * write / self.scale[prompt, position]
        logits = normed @ model.unembedding.T
        return logits[..., TOKENS[prompt, position + 1]] - logits.mean(-1)

    def head_effect(self, cache: Any, layer: int, head: int, prompt: int, position: int) -> Tensor:
        part = self.model.layers[layer]
        z = cache[f"blocks.{layer}.attn.o.hook_in"][prompt, position, head]
        return self.effect((z - part.value_bias[head]) @ part.w_o[head], prompt, position)


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_neurons_are_those_of_the_hooked_model(tiny: Any, name: str, dtype: str) -> None:
    model, bound = tiny(name, dtype), BOUND[dtype]
    hooked, heads = Hooked(model), [(1, 0), (model.n_layers - 1, 1)]
    selected = torch.zeros(PROMPTS, LENGTH - 1, 2, dtype=torch.bool)
    for prompt, position, index in [(0, 3, 0), (2, 16, 0), (2, 5, 1), (3, 0, 1)]:
        selected[prompt, position, index] = True
    mlps = (-1, 1)
    found = neuron_repair(
        model, TOKENS, donors=DONORS, heads=heads, selected=selected, mlps=mlps, batch=3, chunk=2
    )
    assert list(zip(found.head.tolist(), found.prompt.tolist(), strict=True)) == [
        (0, 0),
        (0, 2),
        (1, 2),
        (1, 3),
    ]
    assert found.neuron_error < bound
    for row, index in enumerate(found.head.tolist()):
        layer, head = heads[index]
        prompt, position = int(found.prompt[row]), int(found.position[row])
        ablated = hooked.ablated(layer, head)
        expected = hooked.head_effect(hooked.clean, layer, head, prompt, position)
        assert float(found.head_effect[row]) == pytest.approx(float(expected), abs=bound)
        for place, mlp in enumerate(mlps):
            mlp %= model.n_layers
            w_out = model.layers[mlp].neurons.w_out
            post = f"blocks.{mlp}.mlp.out.hook_in"
            clean, after = (
                hooked.effect(_shaped(c[post])[prompt, position, :, None] * w_out, prompt, position)
                for c in (hooked.clean, ablated)
            )
            change = after - clean
            if not seen_by(model, mlp, layer):
                assert bool((change.abs() <= bound).all())
                assert float(found.absolute_sum[row, place]) == 0
                continue
            kept = found.neuron[row, place]
            assert torch.allclose(found.neuron_effect[row, place], clean[kept], atol=bound)
            assert torch.allclose(found.neuron_ablated_effect[row, place], after[kept], atol=bound)
            largest = change.topk(len(kept)).values
            assert torch.allclose(change[kept], largest, atol=bound)
            assert float(found.positive_sum[row, place]) == pytest.approx(
                float(change.clamp(min=0).sum()), abs=len(change) * bound
            )
            assert float(found.absolute_sum[row, place]) == pytest.approx(
                float(change.abs().sum()), abs=len(change) * bound
            )
            whole = hooked.effect(
                ablated[f"blocks.{mlp}.mlp.hook_out"][prompt, position], prompt, position
            )
            assert float(found.mlp_ablated_effect[row, place]) == pytest.approx(
                float(whole), abs=bound
            )


def _shaped(values: Tensor) -> Tensor:
    return values.reshape(PROMPTS, LENGTH, -1)


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_feeding_back_is_that_of_the_hooked_model(tiny: Any, name: str, dtype: str) -> None:
    """The head's own output, on the whole prompt, one position at a time."""
    model, bound = tiny(name, dtype), BOUND[dtype]
    hooked, heads = Hooked(model), [(1, 1), (2, 0), (2, 2)]
    selected = torch.zeros(PROMPTS, LENGTH - 1, 3, dtype=torch.bool)
    for prompt, position, index in [(0, 3, 0), (1, 16, 0), (2, 5, 1), (3, 0, 1), (3, 9, 2)]:
        selected[prompt, position, index] = True
    scalings = (1.0, 5.0)
    found = feed_back(model, TOKENS, heads=heads, selected=selected, scalings=scalings, batch=3)
    assert len(found.head) == 5
    for row, index in enumerate(found.head.tolist()):
        layer, head = heads[index]
        prompt, position = int(found.prompt[row]), int(found.position[row])
        expected = hooked.head_effect(hooked.clean, layer, head, prompt, position)
        assert float(found.direct_effect[row]) == pytest.approx(float(expected), abs=bound)
        part = model.layers[layer]
        z = hooked.clean[f"blocks.{layer}.attn.o.hook_in"][prompt, position, head]
        own = (z - part.value_bias[head]) @ part.w_o[head]
        for place, factor in enumerate(scalings):

            def add(value: Tensor, hook: Any, own: Tensor = own, factor: float = factor) -> Tensor:
                value = value.clone()
                value[prompt, position] += factor * own  # noqa: B023
                return value

            cache = hooked.run((f"blocks.{layer}.hook_in", add))
            new = hooked.head_effect(cache, layer, head, prompt, position)
            measured = found.new_direct_effect[row, FED_BACK.index("own"), place]
            assert float(measured) == pytest.approx(float(new), abs=bound)


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_refeeding_is_that_of_the_hooked_model(tiny: Any, name: str, dtype: str) -> None:
    model, bound = tiny(name, dtype), BOUND[dtype]
    hooked, layer = Hooked(model), 1
    effects = torch.stack(
        [
            torch.stack(
                [
                    hooked.head_effect(hooked.clean, at, head, p, k)
                    for at in range(model.n_layers)
                    for head in range(model.n_heads)
                ]
            )
            for p in range(PROMPTS)
            for k in range(LENGTH - 1)
        ]
    ).reshape(PROMPTS, LENGTH - 1, model.n_layers, model.n_heads)
    selected = top_mask(effects.flatten(2)).reshape(effects.shape)
    found = refeed(model, TOKENS, donors=DONORS, selected=selected, batch=3, chunk=5)

    def change(cache: Any, next_head: int, prompt: int, position: int) -> float:
        new = hooked.head_effect(cache, layer + 1, next_head, prompt, position)
        return float(new - effects[prompt, position, layer + 1, next_head])

    earlier = hooked.clean[f"blocks.{layer}.hook_in"]
    refed = hooked.run((f"blocks.{layer + 1}.hook_in", lambda value, hook: earlier))
    sums = torch.zeros(2, PROMPTS, len(SUMS), dtype=torch.float64)
    pairs = torch.zeros(model.n_heads, model.n_heads, 3, dtype=torch.float64)
    for head in range(model.n_heads):
        ablated = hooked.ablated(layer, head)
        for next_head in range(model.n_heads):
            for p in range(PROMPTS):
                for k in range(LENGTH - 1):
                    x, y = change(refed, next_head, p, k), change(ablated, next_head, p, k)
                    values = torch.tensor([1, x, y, x * x, y * y, x * y], dtype=torch.float64)
                    sums[1, p] += values
                    if selected[p, k, layer, head]:
                        sums[0, p] += values
                        pairs[head, next_head] += values[:3]
    room = bound * (LENGTH * model.n_heads**2)
    assert torch.allclose(found.prompt_sums[:, 0, layer], sums[0], atol=room)
    assert torch.allclose(found.prompt_sums[:, 1, layer], sums[1], atol=room)
    assert torch.allclose(found.pair_sums[layer], pairs, atol=room)
    assert float(found.pair_sums[layer][..., 0].min()) == 1  # floor(0.02 x 68) top tokens
    assert float(sums[0].abs().max()) > 100 * bound


def test_all_tokens_of_refeeding_begin_at_the_first_position(tiny: Any) -> None:
    model = tiny("llama")
    selected = torch.zeros(PROMPTS, LENGTH - 1, model.n_layers, model.n_heads, dtype=torch.bool)
    selected[:, 2] = True
    every = refeed(model, TOKENS, donors=DONORS, selected=selected)
    some = refeed(model, TOKENS, donors=DONORS, selected=selected, first_position=1)
    first = selected.roll(-2, 1)  # the one position that is left out
    left_out = refeed(model, TOKENS, donors=DONORS, selected=first)
    assert torch.equal(every.pair_sums, some.pair_sums)
    assert torch.equal(every.prompt_sums[:, 0], some.prompt_sums[:, 0])
    expected = every.prompt_sums[:, 1] - left_out.prompt_sums[:, 0]
    torch.testing.assert_close(some.prompt_sums[:, 1], expected)


def test_a_shard_without_selected_tokens_is_empty_and_not_refused(tiny: Any) -> None:
    model = tiny("llama")
    none = torch.zeros(PROMPTS, LENGTH - 1, 1, dtype=torch.bool)
    empty = neuron_repair(model, TOKENS, donors=DONORS, heads=[(1, 0)], selected=none)
    some = none.clone()
    some[0, 3] = True
    full = neuron_repair(model, TOKENS, donors=DONORS, heads=[(1, 0)], selected=some)
    for name, values in full.arrays().items():
        assert values.shape[1:] == empty.arrays()[name].shape[1:], name
        assert values.dtype == empty.arrays()[name].dtype, name
    assert len(empty.head) == 0
    assert int(empty.effect_counts.sum()) == 0
    fed = feed_back(model, TOKENS, heads=[(1, 0)], selected=none)
    assert fed.new_direct_effect.shape == (0, len(FED_BACK), 3)
    assert fed.conservation_error > 0


def test_neurons_do_not_depend_on_what_is_replayed_together(tiny: Any) -> None:
    """Rows are cut after their last selected token, so their lengths differ by what is together."""
    length = 40
    model, tokens, donors = (
        tiny("llama", "float64"),
        random_tokens(PROMPTS, length),
        random_tokens(PROMPTS, length, seed=2),
    )
    selected = torch.rand(PROMPTS, length - 1, 2, generator=torch.Generator().manual_seed(0)) < 0.1
    selected[0], selected[1, 20:] = False, False
    every = torch.ones(PROMPTS, length - 1, 2, dtype=torch.bool)
    every[:, :, 0] = selected[..., 0]
    options: dict[str, Any] = {"donors": donors, "heads": [(1, 0), (2, 1)], "mlps": (-1, 1)}
    some = neuron_repair(model, tokens, selected=selected, **options)
    alone = neuron_repair(model, tokens, selected=selected, batch=1, chunk=1, **options)
    whole = neuron_repair(model, tokens, selected=every, **options)
    for name, values in some.arrays().items():
        torch.testing.assert_close(values, alone.arrays()[name], atol=1e-10, rtol=0, msg=name)
    places = torch.stack([whole.head, whole.prompt, whole.position], 1)
    wanted = selected[whole.prompt, whole.position, whole.head]
    assert torch.equal(places[wanted], torch.stack([some.head, some.prompt, some.position], 1))
    for name in ("neuron_effect", "neuron_ablated_effect", "absolute_sum", "mlp_ablated_effect"):
        torch.testing.assert_close(
            getattr(whole, name)[wanted], getattr(some, name), atol=1e-10, rtol=0, msg=name
        )


def test_iterative_inference_is_both_on_one_clean_pass(tiny: Any) -> None:
    model, heads = tiny("llama", "float64"), [(2, 1), (1, 0)]
    draw = torch.Generator().manual_seed(0)
    top = torch.rand(PROMPTS, LENGTH - 1, model.n_layers, model.n_heads, generator=draw) < 0.2
    selected = torch.stack([top[..., layer, head] for layer, head in heads], -1)
    numbers: dict[str, Any] = {"seed": 3, "first_prompt": 7, "scalings": (1.0, 5.0)}
    feeding: dict[str, Any] = {"heads": heads, "selected": selected, **numbers}
    refeeding: dict[str, Any] = {"donors": DONORS, "first_position": 1}
    runs = [0]
    handle = model.network.base_model.register_forward_pre_hook(
        lambda *_: runs.append(runs.pop() + 1)
    )
    fed, refed = iterative_inference(model, TOKENS, top=top, **feeding, **refeeding)
    runs.append(0)
    alone = feed_back(model, TOKENS, **feeding)
    other = refeed(model, TOKENS, selected=top, **refeeding)
    handle.remove()
    for found, expected in ((fed, alone), (refed, other)):
        assert found.conservation_error == expected.conservation_error
        for name, values in found.arrays().items():
            assert torch.equal(values, expected.arrays()[name]), name
    together, apart = runs[-2:]
    assert apart - together == 3  # the prompts again, after two rows to learn the layers' arguments


def test_a_random_direction_is_no_shift_of_the_whole_stream(tiny: Any) -> None:
    """Which a LayerNorm would take off again."""
    every = torch.ones(PROMPTS, LENGTH - 1, 1, dtype=torch.bool)
    found = feed_back(tiny("gpt2", "float64"), TOKENS, heads=[(1, 0)], selected=every)
    moved = found.new_direct_effect[:, FED_BACK.index("random")] - found.direct_effect[:, None]
    assert float(moved.abs().mean()) > 0.01
