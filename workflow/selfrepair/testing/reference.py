"""The slow, obvious reference: the hooked model, one head at a time, always run whole.

What an ablation puts in place of z is the one thing that it has in common with the fast path. A component's direct effect is the final norm with its
clean scale frozen, then the whole unembedding, then the mean over the vocabulary taken off.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ..ablations import ABLATIONS, Baselines
from ..measure.sweep_result import PER_HEAD, SweepResult, zeros_where_measured
from ..model.decoder import Decoder

Cache = dict[str, Tensor]


@torch.no_grad()
def sweep_reference(
    model: Decoder,
    tokens: Int[Tensor, "prompt length"],
    *,
    donors: Int[Tensor, "prompt length"] | None = None,
    ablation: str = "resample",
    heads: list[tuple[int, int]] | None = None,
) -> SweepResult:
    """What `selfrepair.sweep` measures, by running the hooked bridge whole once per head."""
    clean, clean_logits = _run(model, tokens)
    donor = _run(model, donors)[0] if donors is not None else None
    scale = _scale(model, clean["ln_final.hook_in"])
    shape = (*tokens.shape, model.n_layers, model.n_heads)
    out = {name: torch.full(shape, torch.nan, dtype=model.dtype) for name in PER_HEAD}
    effects = torch.empty(shape, dtype=model.dtype)
    for layer in range(model.n_layers):
        for head in range(model.n_heads):
            write = _head_write(model, layer, head, clean[_z(layer)])
            effects[..., layer, head] = _frozen_logit(model, write, scale, tokens)
    if heads is None:
        heads = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    total = _parts_total(model, clean, scale, tokens, effects)
    own = _target(clean_logits, tokens)
    error = float((total - own)[:, :-1].abs().max())
    for layer, head in heads:
        z = _replacement(model, layer, ablation, clean, donor)[..., head, :]
        cache, logits = _run(model, tokens, layer=layer, head=head, z=z)
        measured = _compare(model, layer, head, (clean, cache), scale, tokens)
        measured["delta_logit"] = _target(logits, tokens) - own
        lost = measured.pop("delta_effect")
        measured["self_repair"] = measured["delta_logit"] - lost
        measured["ablated_direct_effect"] = effects[..., layer, head] + lost
        for name, value in measured.items():
            out[name][..., layer, head] = value
    out["from_post_norms"] = zeros_where_measured(out["from_norm"])
    out = {name: value[:, :-1] for name, value in out.items()}
    parts = out["from_heads"] + out["from_mlps"] + out["from_norm"]
    return SweepResult(
        direct_effect=effects[:, :-1],
        scale=scale[:, :-1],
        conservation_error=error,
        decomposition_error=float((out["self_repair"] - parts).abs().nan_to_num().max()),
        has_post_norms=False,
        **out,
    )


def _z(layer: int) -> str:
    return f"blocks.{layer}.attn.o.hook_in"


def _run(
    model: Decoder,
    tokens: Tensor,
    *,
    layer: int | None = None,
    head: int | None = None,
    z: Tensor | None = None,
) -> tuple[Cache, Tensor]:
    """Every activation and the logits, with one head's z replaced by z [prompt, position, d_head]."""

    def replace(value: Tensor, hook: Any) -> Tensor:
        assert head is not None
        assert z is not None
        value = value.clone()
        value[..., head, :] = z
        return value

    hooks = [] if layer is None else [(_z(layer), replace)]
    cache: Cache = {}

    def keep(value: Tensor, hook: Any) -> None:
        cache[hook.name] = value.detach().clone()

    wanted = [_z(at) for at in range(model.n_layers)]
    wanted += [f"blocks.{at}.attn.o.hook_out" for at in range(model.n_layers)]
    wanted += [f"blocks.{at}.mlp.hook_out" for at in range(model.n_layers)]
    wanted += ["blocks.0.hook_in", "ln_final.hook_in"]
    logits = model.bridge.run_with_hooks(
        tokens, fwd_hooks=[*hooks, *((name, keep) for name in wanted)]
    )
    return cache, logits - logits.mean(-1, keepdim=True)


def _replacement(
    model: Decoder, layer: int, ablation: str, clean: Cache, donor: Cache | None
) -> Tensor:
    """z' of every head, which broadcasts to [prompt, position, head, d_head]."""
    z = clean[_z(layer)]
    given = Baselines(
        z=z,
        value_bias=model.layers[layer].value_bias,
        donor_z=None if donor is None else donor[_z(layer)],
        mean_z=z[:, :-1].mean((0, 1)),
    )
    return ABLATIONS[ablation].replacement(given).expand_as(z)


def _head_write(model: Decoder, layer: int, head: int, z: Tensor) -> Tensor:
    weights = model.layers[layer]
    return (z[..., head, :] - weights.value_bias[head]) @ weights.w_o[head]


def _scale(model: Decoder, residual: Tensor) -> Tensor:
    if model.final_norm.centred:
        return (residual.var(-1, unbiased=False) + model.final_norm.eps).sqrt()
    return (residual.pow(2).mean(-1) + model.final_norm.eps).sqrt()


def _frozen_logit(model: Decoder, write: Tensor, scale: Tensor, tokens: Tensor) -> Tensor:
    """Centred target logit of a component's write, under the final norm with its scale frozen."""
    if model.final_norm.centred:
        write = write - write.mean(-1, keepdim=True)
    normed = model.final_norm.gain * write / scale[..., None]
    logits = normed @ model.unembedding.T
    return _target(logits - logits.mean(-1, keepdim=True), tokens)


def _target(logits: Tensor, tokens: Tensor) -> Tensor:
    """The logit of the next token; the last position has none and stays NaN."""
    out = torch.full(tokens.shape, torch.nan, dtype=logits.dtype)
    out[:, :-1] = logits[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    return out


def _parts_total(
    model: Decoder, clean: Cache, scale: Tensor, tokens: Tensor, effects: Tensor
) -> Tensor:
    """All direct effects and the constant b, which a zero residual leaves on the logits."""
    nothing = torch.zeros(model.d_model, dtype=model.dtype)
    constant = model.to_logits(nothing).expand(*tokens.shape, -1)
    total = _target(constant, tokens) + effects.sum((-2, -1))
    total += _frozen_logit(model, clean["blocks.0.hook_in"], scale, tokens)
    for layer, weights in enumerate(model.layers):
        bias = (weights.value_bias[:, None] @ weights.w_o).sum((0, 1)) + weights.b_o
        total += _frozen_logit(model, bias.expand(*tokens.shape, -1), scale, tokens)
        total += _frozen_logit(model, clean[f"blocks.{layer}.mlp.hook_out"], scale, tokens)
    return total


def _compare(
    model: Decoder,
    layer: int,
    head: int,
    caches: tuple[Cache, Cache],
    scale: Tensor,
    tokens: Tensor,
) -> dict[str, Tensor]:
    """Changes between the clean and the ablated run, component by component."""
    clean, ablated = caches

    def change(name: str) -> Tensor:
        return _frozen_logit(model, ablated[name] - clean[name], scale, tokens)

    lost = _head_write(model, layer, head, ablated[_z(layer)]) - _head_write(
        model, layer, head, clean[_z(layer)]
    )
    other_heads = torch.zeros_like(scale)
    for at in range(model.n_layers):
        for other in range(model.n_heads):
            if (at, other) != (layer, head):
                write = _head_write(model, at, other, ablated[_z(at)])
                write = write - _head_write(model, at, other, clean[_z(at)])
                other_heads = other_heads + _frozen_logit(model, write, scale, tokens)
    mlps = torch.zeros_like(scale)
    for at in range(model.n_layers):
        mlps = mlps + change(f"blocks.{at}.mlp.hook_out")
    ablated_scale = _scale(model, ablated["ln_final.hook_in"])
    with_new = _frozen_logit(model, ablated["ln_final.hook_in"], ablated_scale, tokens)
    with_old = _frozen_logit(model, ablated["ln_final.hook_in"], scale, tokens)
    return {
        "delta_effect": _frozen_logit(model, lost, scale, tokens),
        "from_heads": other_heads,
        "from_mlps": mlps,
        "from_norm": with_new - with_old,
        "ablated_scale": ablated_scale,
    }
