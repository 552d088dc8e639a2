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
    own: Float[Tensor, "prompt position"],
) -> float:
    """Largest |sum of DE + b - centred logit| in logits; own: the model's own centred logits."""
    u, scale = wanted.directions, decoder.final_norm.scale(clean.residual[-1])
    total = dot(clean.residual[0], u) / scale + wanted.offsets
    for layer, part in enumerate(decoder.layers):
        sigma, tau = clean.attention_scale[layer], clean.mlp_scale[layer]
        heads = head_direct_effects(decoder, layer, clean.z[layer], u, scale, sigma)
        total = total + heads.sum(-1)
        total = total + bias_direct_effect(decoder, layer, u, scale, sigma)
        total = total + part.mlp_write.projection(clean.mlp_out[layer], u, tau) / scale
    return float((total - own).abs().max())


def target_logits(
    decoder: Decoder,
    residual: Float[Tensor, "prompt position d_model"],
    next_tokens: Int[Tensor, "prompt position"],
) -> tuple[Float[Tensor, "prompt position"], Float[Tensor, "prompt position"]]:
    """Centred logit and surprisal (nats) of the targets, by the model's own unembedding.

    The logit is the one before a soft cap; the surprisal is the model's own, so after it. A prompt at a
    time: the logits of the whole vocabulary are large.
    """
    logits, surprisals = [], []
    for row, wanted in zip(residual, next_tokens, strict=True):
        every = decoder.to_logits(row).to(sum_dtype(row.dtype))
        own = every.gather(-1, wanted[:, None])[:, 0]
        logits.append(own)
        if decoder.logit_softcap is not None:
            every = decoder.capped(decoder.uncapped_logits(row)).to(every.dtype)
            own = every.gather(-1, wanted[:, None])[:, 0]
        surprisals.append(every.logsumexp(-1) - own)
    return torch.stack(logits), torch.stack(surprisals)


def check_error(kind: str, error: float, dtype: str, *, where: str = "this batch") -> None:
    """Raise ExactnessError if an error (logits) is not within the dtype's bound; NaN never is."""
    bound = ERROR_BOUNDS[dtype]
    if not error <= bound:
        raise ExactnessError(
            f"{where}: {kind} error {error:.3g} logits exceeds {bound:.3g} for {dtype}; "
            "use a wider dtype, or report the model: its numbers would be wrong"
        )
