"""Constants that a model multiplies by, found by what it computes.

Logits times a constant (Cohere, Granite) and soft-capped (Gemma 2): docs/method.md section 3. Sublayers'
outputs times a constant before they are added to the residual stream (Granite).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .decoder import Decoder
from .replay import Recording


@torch.no_grad()
def find_logit_constants(
    decoder: Decoder,
    residual: Float[Tensor, "prompt position d_model"],
    logits: Float[Tensor, "prompt position vocab"],
) -> None:
    """Set the scale and the soft cap of the decoder's logits.

    residual: the final residual; logits: what the whole model made of it. The soft cap that the config
    states is taken if the logits are closer to being capped so than to being not capped.
    """
    stated = getattr(decoder.network.config.get_text_config(), "final_logit_softcapping", None)
    tried = []
    for cap in (None, stated) if stated else (None,):
        decoder.logit_scale, decoder.logit_softcap = 1.0, cap
        decoder.logit_scale = _logit_scale(decoder, residual, logits)
        error = logit_error(decoder, residual, logits)
        tried.append((error, decoder.logit_scale, cap))
    _, decoder.logit_scale, decoder.logit_softcap = min(tried, key=lambda found: found[0])


def _logit_scale(decoder: Decoder, residual: Tensor, logits: Tensor) -> float:
    """The factor between the unembedding's logits and the model's, by least squares."""
    unscaled, given = decoder.uncapped_logits(residual).double(), logits.double()
    cap = decoder.logit_softcap
    if cap is not None:
        inside = (
            given.abs() < 0.9 * cap
        )  # nearer to the cap, what was before it is lost to rounding
        unscaled, given = unscaled[inside], cap * torch.atanh(given[inside] / cap)
    factor = float((unscaled * given).sum() / unscaled.square().sum())
    return _as_stated(factor, decoder)


def logit_error(decoder: Decoder, residual: Tensor, logits: Tensor) -> float:
    """Largest difference between the model's logits and what the decoder makes of the final residual."""
    own = decoder.capped(decoder.uncapped_logits(residual))
    difference = own - logits
    return float((difference - difference.mean(-1, keepdim=True)).abs().max())


@torch.no_grad()
def find_factors(decoder: Decoder, clean: Recording) -> None:
    """Set the factors of each layer's sublayers, where their outputs alone do not add up to the change of
    the residual stream."""
    for index, layer in enumerate(decoder.layers):
        added = (clean.residual[index + 1] - clean.residual[index]).double()
        plain = []
        for write, raw in (
            (layer.attention_write, clean.attention_out[index]),
            (layer.mlp_write, clean.mlp_out[index]),
        ):
            if write.norm is None:
                plain.append((write, raw.double()))
            else:
                added = added - write.norm.module(raw).double()
        if not plain or _adds_up(decoder, added, plain, clean.residual[index + 1]):
            continue
        columns = torch.stack([raw.flatten() for _, raw in plain], -1).cpu()
        solution = torch.linalg.lstsq(columns, added.flatten()[:, None].cpu()).solution[:, 0]
        for (write, _), factor in zip(plain, solution.tolist(), strict=True):
            write.factor = _as_stated(factor, decoder)


def _adds_up(decoder: Decoder, added: Tensor, plain: list[Any], residual: Tensor) -> bool:
    """Whether the change of the stream is the sum of the raw outputs, up to the rounding of the stream."""
    left = added - torch.stack([raw for _, raw in plain]).sum(0)
    largest = max(float(residual.abs().max()), *(float(raw.abs().max()) for _, raw in plain))
    return float(left.abs().max()) <= 8 * _precision(decoder) * largest


def _as_stated(value: float, decoder: Decoder) -> float:
    """1, or the constant of the model's config, or its inverse, if the value is that close to it; else the
    value itself."""
    tolerance = max(1e-5, _precision(decoder)) * abs(value)
    config = decoder.network.config.get_text_config().to_dict().values()
    numbers = [float(v) for v in config if isinstance(v, (int, float)) and v]
    for known in (
        1.0,
        *sorted([*numbers, *(1 / v for v in numbers)], key=lambda v: abs(v - value)),
    ):
        if abs(known - value) <= tolerance:
            return known
    return value


def _precision(decoder: Decoder) -> float:
    """Relative rounding of the model's numbers; float64 models compute some in float32."""
    return max(torch.finfo(decoder.dtype).eps, torch.finfo(torch.float32).eps)
