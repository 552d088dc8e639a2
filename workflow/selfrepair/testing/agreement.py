"""The first numbers of a sweep, measured again by the plain model on the CPU (docs/method.md section 3).

Whatever device, number format and replays the sweep used: the plain Hugging Face model (`hooked_reference`) is
run whole, one head on one prompt at a time, and what was stored is compared with it. That finds a device that
computes something else, of which the sums over its own numbers need not tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..ablations import ABLATIONS, DONORS
from ..errors import ExactnessError, first_line
from ..model.decoder import ERROR_BOUNDS
from ..model.loading import load_model
from ..model.parts import ModelParts
from ..text.prompts import Prompts
from ..vocabulary import ALL, EFFECTS, TERMS, Head
from .hooked_reference import HookedModel, Pass, compare_passes, replacement

Shard = Mapping[str, Tensor]
# Instances of each head that are measured again: few, so that it takes seconds.
INSTANCES = 3


class Unsuitable(Exception):
    """The plain model is no reference here; the message is why, as a part of a sentence."""


@dataclass(frozen=True)
class Place:
    """A head on a prompt of the sample, at some positions, and the number of it in the shard: of the instance,
    or of the prompt where the shard holds the sum over the positions (summed)."""

    head: Head
    prompt: int
    positions: range
    row: int
    summed: bool = False

    def stored(self, shard: Shard, quantity: str) -> float | None:
        """What the shard holds, logits; None for a term that the model lacks."""
        values = shard.get(f"{ALL}.{quantity}" if self.summed else quantity)
        if values is None:
            return None
        return float(
            values[self.row, self.head[0], self.head[1]] if self.summed else values[self.row]
        )


@dataclass(frozen=True)
class Agreement:
    """What was compared: heads, instances, and the largest difference by quantity, logits an instance."""

    heads: list[Head]
    instances: int
    largest_difference: dict[str, float]


def plain_model(
    location: str, *, dtype: str, revision: str | None, parts: ModelParts | None
) -> HookedModel:
    """The plain model on the CPU with its weights as loaded, a second time beside those that know its parts.

    Raises:
        Unsuitable: it does not fit into memory, or does not run there.
    """
    # Without the layout of oneDNN, which would hold the weights a third time.
    onednn: Any = torch.backends.mkldnn
    before, onednn.enabled = onednn.enabled, False
    try:
        decoder = load_model(location, device="cpu", dtype=dtype, revision=revision, parts=parts)
        # As it was measured: transformers' eager attention is not the same in every family.
        return HookedModel(decoder, attention=decoder.network.config._attn_implementation)
    except Exception as error:
        raise Unsuitable(first_line(error)) from error
    finally:
        onednn.enabled = before


def drawn_places(shard: Shard, *, heads: int, seed: int) -> list[Place]:
    """Some heads, one of each part of the depth, and their first INSTANCES instances in a shard of drawn
    tokens, whose prompts are counted in the sample."""
    generator = np.random.default_rng([seed, heads])
    pairs = zip(shard["layer"].tolist(), shard["head"].tolist(), strict=True)
    known = sorted(set(pairs))
    layers = sorted({layer for layer, _ in known})
    found = []
    for layer in _spread(layers, heads, generator):
        head = int(generator.choice([head for at, head in known if at == layer]))
        # Instances are in the order of their prompts.
        here = ((shard["layer"] == layer) & (shard["head"] == head)).nonzero()[:, 0]
        for row in here[:INSTANCES].tolist():
            position = int(shard["position"][row])
            found.append(
                Place((layer, head), int(shard["prompt"][row]), range(position, position + 1), row)
            )
    return found


def summed_places(
    shard: Shard, *, first_prompt: int, positions: range, heads: int, seed: int
) -> list[Place]:
    """The same of a shard that holds sums over all tokens: a prompt of each head, at its selected positions."""
    generator = np.random.default_rng([seed, heads])
    n_prompts, n_layers, n_heads = shard[f"{ALL}.self_repair"].shape
    found = []
    for layer in _spread(range(n_layers), heads, generator):
        row = int(generator.integers(min(n_prompts, INSTANCES)))
        head = layer, int(generator.integers(n_heads))
        found.append(Place(head, first_prompt + row, positions, row, summed=True))
    return found


def _spread(layers: Sequence[int], wanted: int, generator: np.random.Generator) -> list[int]:
    """A random layer of each of so many parts of the depth."""
    parts = np.array_split(np.asarray(layers), min(wanted, len(layers)))
    return [int(generator.choice(part)) for part in parts]


def tolerance_of(record: Mapping[str, Any], reference: str) -> float:
    """How far, in logits, an instance may be from the reference: what the sums of its number format, or of the
    reference's, may be off by, or twice what the number format was measured to cost, and what storing has cost.
    record: the shard's sidecar; reference: a dtype."""
    own = "float16" if record["tf32"] else record["dtype"]  # a TF32 product has float16's mantissa
    bound = max(ERROR_BOUNDS[own], ERROR_BOUNDS[reference])
    # Measured on a few tokens only, so the largest of others may be larger.
    bound = max(bound, 2 * float(record.get("precision_error", 0.0)))
    return bound + float(record.get("rounding_error", 0.0))


def compare(
    hooked: HookedModel,
    shard: Shard,
    places: Sequence[Place],
    prompts: Prompts,
    *,
    ablation: str,
    tolerance: float,
    name: str,
    remedy: str,
) -> Agreement:
    """Compare numbers of a shard with the plain model's.

    Args:
        tolerance: logits, of an instance; a sum may be off by as much for each of its tokens.
        name: of the shard and its model; remedy: what to do; both for the message.
    Raises:
        ExactnessError: a number differs by more, or is NaN.
        Unsuitable: the plain model cannot be run with hooks, or its own terms do not add up.
    """
    largest: dict[str, float] = {}
    for place in places:
        for quantity, values in _reference(hooked, prompts, place, ablation).items():
            own, count = place.stored(shard, quantity), len(place.positions)
            if own is None:
                continue
            expected = float(values.double().sum())
            difference = abs(own - expected) / count
            if not difference <= tolerance:
                where = f"position {place.positions[0]}" if count == 1 else f"sum of {count} tokens"
                raise ExactnessError(
                    f"{name}: head {place.head[0]}.{place.head[1]}, prompt {place.prompt}, {where}:"
                    f" {quantity} is {own:.6g} logits, by the plain model on the CPU {expected:.6g}, and"
                    f" {tolerance * count:.2g} may lie between; {remedy}"
                )
            largest[quantity] = max(largest.get(quantity, 0.0), difference)
    heads = list(dict.fromkeys(place.head for place in places))
    return Agreement(heads, sum(len(place.positions) for place in places), largest)


def _reference(
    hooked: HookedModel, prompts: Prompts, place: Place, ablation: str
) -> dict[str, Float[Tensor, " position"]]:
    """EFFECTS by name at a place's positions, logits (raises Unsuitable, as `compare`)."""
    try:
        effects = _measured(hooked, prompts, place, ablation)
    except Exception as error:
        raise Unsuitable(first_line(error)) from error
    terms = torch.stack([effects[name] for name in TERMS]).sum(0)
    off = float((effects["self_repair"] - terms).abs().max())
    if not off <= ERROR_BOUNDS[hooked.decoder.dtype_name]:
        raise Unsuitable(f"its own terms are {off:.3g} logits from its self-repair")
    return effects


def _measured(
    hooked: HookedModel, prompts: Prompts, place: Place, ablation: str
) -> dict[str, Float[Tensor, " position"]]:
    layer, head = place.head
    # Later tokens reach nothing that is looked at; the last position's target is one more token.
    end = place.positions[-1] + 2
    tokens, donor = prompts.tokens[[place.prompt], :end], None
    if DONORS in ABLATIONS[ablation].needs:
        donor = hooked.run(prompts.tokens[prompts.donors[[place.prompt]], :end])
    clean = hooked.run(tokens)
    z = replacement(hooked.decoder, layer, ablation, clean, donor)[..., head, :]
    ablated = hooked.run(tokens, z=[(layer, head, z)])
    # The vocabulary at earlier positions would be most of the work.
    first = place.positions[0]
    clean, ablated, tokens = _from(clean, first), _from(ablated, first), tokens[:, first:]
    found = compare_passes(hooked, layer, head, clean, ablated, tokens)
    write = hooked.head_write(layer, head, clean, clean)
    found["direct_effect"] = hooked.frozen_logit(write, clean, tokens)
    found["ablated_direct_effect"] = found["ablated_direct_effect"] + found["direct_effect"]
    return {name: found[name][0, :-1] for name in EFFECTS}


def _from(run: Pass, first: int) -> Pass:
    """A pass from a position on."""

    def cut(value: Any) -> Any:
        if isinstance(value, list):
            return [None if each is None else each[:, first:] for each in value]
        return value[:, first:]

    return replace(run, **{field.name: cut(getattr(run, field.name)) for field in fields(run)})
