"""Direct effects: what each component's output adds to the centred logit of the target token.

docs/method.md section 1 (Rushing & Nanda 2024, section 2): DE(c) = (c . u) / S with the clean final norm
scale S, and the conservation law: all direct effects and b add up to the logit. Where a block normalises
a sublayer's output, c is what it adds at the clean scale of that post-norm (section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ExactnessError
from .decoder import ERROR_BOUNDS, Decoder
from .products import dot, sum_dtype
from .replay import Recording

# Logits that are held at once: as many as stay in the cache of a CPU; fewer vocabulary entries at a time
# than the least would make slow products.
_PIECE = {"cpu": 2**20, "cuda": 2**25}
_LEAST_PIECE = 512


@dataclass
class Targets:
    """What the target tokens ask of the final residual.

    directions: u, [prompt, position, d_model]; offsets: b, [prompt, position], logits.
    """

    directions: Float[Tensor, "prompt position d_model"]
    offsets: Float[Tensor, "prompt position"]


def targets(decoder: Decoder, next_tokens: Int[Tensor, "prompt position"]) -> Targets:
    """Target directions u and offsets b of docs/method.md section 1, table of symbols.

    u = gain * (W_U[y] - mean over vocabulary), for LayerNorm minus its own mean over d_model;
    b = bias . (W_U[y] - mean) + b_U[y] - mean b_U. What the model multiplies its logits by is in both.
    """
    mean_row, mean_bias = _vocabulary_means(decoder)
    norm = decoder.final_norm
    rows = decoder.unembedding[next_tokens] - mean_row
    offsets = dot(rows, norm.bias.expand_as(rows))
    offsets = offsets + (decoder.unembedding_bias[next_tokens] - mean_bias)
    directions = rows * norm.gain
    if norm.centred:
        directions = directions - directions.mean(-1, keepdim=True)
    if decoder.logit_scale != 1:
        directions, offsets = decoder.logit_scale * directions, decoder.logit_scale * offsets
    return Targets(directions, offsets)


def _vocabulary_means(decoder: Decoder) -> tuple[Tensor, Tensor]:
    if "means" not in decoder._caches:
        row = decoder.unembedding.double().mean(0).to(decoder.dtype)
        bias = decoder.unembedding_bias.double().mean().to(decoder.dtype)
        decoder._caches["means"] = row, bias
    return decoder._caches["means"]


def head_direct_effects(
    decoder: Decoder,
    layer: int,
    z: Float[Tensor, "prompt position head d_head"],
    directions: Float[Tensor, "prompt position d_model"],
    scale: Float[Tensor, "prompt position"],
    post_scale: Float[Tensor, "prompt position"] | None = None,
) -> Float[Tensor, "prompt position head"]:
    """DE of each head's output (z - b_V) W_O, logits; the folded value bias belongs to no head.

    scale: S; post_scale: the clean scale of the attention's post-norm, if it has one.
    """
    part = decoder.layers[layer]
    directions = part.attention_write.through(directions, post_scale)
    seen = torch.einsum("pkd,hed->pkhe", directions, part.w_o)
    return dot(z - part.value_bias, seen) / scale[..., None]


def bias_direct_effect(
    decoder: Decoder,
    layer: int,
    directions: Float[Tensor, "prompt position d_model"],
    scale: Float[Tensor, "prompt position"],
    post_scale: Float[Tensor, "prompt position"] | None = None,
) -> Float[Tensor, "prompt position"]:
    """DE of the attention output bias with the folded value bias, b_V W_O + b_O; logits.

    scale, post_scale: as for `head_direct_effects`.
    """
    part = decoder.layers[layer]
    bias = torch.einsum("he,hed->d", part.value_bias, part.w_o) + part.b_o
    write = part.attention_write
    return write.projection(bias.expand_as(directions), directions, post_scale) / scale


def conservation_error(
    decoder: Decoder,
    clean: Recording,
    wanted: Targets,
    own: Float[Tensor, "checked position"],
    *,
    head_effects: Float[Tensor, "prompt position layer head"] | None = None,
) -> float:
    """Largest |sum of DE + b - centred logit| in logits, in the first prompts.

    Args:
        own: the model's own centred logits of the prompts to check, the first ones.
        head_effects: direct effects of every head, if they are known.
    """
    n = len(own)
    u, scale = wanted.directions[:n], decoder.final_norm.scale(clean.residual[-1][:n])
    total = dot(clean.residual[0][:n], u) / scale + wanted.offsets[:n]
    for layer, part in enumerate(decoder.layers):
        scales = clean.attention_scale[layer], clean.mlp_scale[layer]
        sigma, tau = (None if each is None else each[:n] for each in scales)
        if head_effects is None:
            heads = head_direct_effects(decoder, layer, clean.z[layer][:n], u, scale, sigma)
        else:
            heads = head_effects[:n, :, layer]
        total = total + heads.sum(-1)
        total = total + bias_direct_effect(decoder, layer, u, scale, sigma)
        total = total + part.mlp_write.projection(clean.mlp_out[layer][:n], u, tau) / scale
    return float((total - own).abs().max())


def target_logits(
    decoder: Decoder,
    residual: Float[Tensor, "prompt position d_model"],
    next_tokens: Int[Tensor, "prompt position"],
) -> tuple[Float[Tensor, "prompt position"], Float[Tensor, "prompt position"]]:
    """Centred logit and surprisal (nats) of the targets, by the model's own unembedding.

    The logit is the one before a soft cap; the surprisal is the model's own, so after it. The vocabulary is
    gone through in pieces that stay in the cache: the logits of all of it are large.
    """
    normed = decoder.final_norm.module(residual).flatten(0, 1)
    wanted, dtype = next_tokens.flatten(), sum_dtype(residual.dtype)
    total, own = (torch.zeros(len(wanted), dtype=dtype, device=normed.device) for _ in range(2))
    exponentials, capped = total.clone(), total.clone()
    largest = torch.full_like(total, -torch.inf)
    budget = _PIECE.get(normed.device.type, _PIECE["cuda"])
    budget = min(budget, residual.shape[1] * decoder.vocabulary)  # no more than those of one prompt
    size = max(_LEAST_PIECE, budget // max(1, len(wanted)))
    for first in range(0, decoder.vocabulary, size):
        logits = decoder.unembedded(normed, slice(first, first + size))
        seen = decoder.capped(logits).to(dtype)
        logits = logits.to(dtype)
        here = (wanted >= first) & (wanted < first + size)
        place = (wanted - first).clamp(0, logits.shape[-1] - 1)[:, None]
        own = torch.where(here, logits.gather(-1, place)[:, 0], own)
        capped = torch.where(here, seen.gather(-1, place)[:, 0], capped)
        total += logits.sum(-1)
        higher = torch.maximum(largest, seen.amax(-1))
        exponentials *= (largest - higher).exp()
        exponentials += (seen - higher[:, None]).exp_().sum(-1)
        largest = higher
    centred, surprisal = own - total / decoder.vocabulary, largest + exponentials.log() - capped
    return centred.reshape(next_tokens.shape), surprisal.reshape(next_tokens.shape)


def error_bound(dtype: str) -> float:
    """What sums may be off by in a number format, logits; a TF32 product has the mantissa of float16."""
    if dtype == "float32" and torch.get_float32_matmul_precision() != "highest":
        return ERROR_BOUNDS["float16"]
    return ERROR_BOUNDS[dtype]


def check_error(kind: str, error: float, dtype: str, *, where: str = "this batch") -> None:
    """Raise ExactnessError if an error (logits) is not within the dtype's bound; NaN never is."""
    bound = error_bound(dtype)
    if not error <= bound:
        raise ExactnessError(
            f"{where}: {kind} error {error:.3g} logits exceeds {bound:.3g} for {dtype}; "
            "use a wider dtype, or report the model: its numbers would be wrong"
        )
