"""What replaces a head's output z: another prompt's (resample), the sample's mean, or zero.

Method section 2. A baseline never depends on batches: partners are a derangement of the whole
sample (`partners`), means are over the whole sample, zero keeps the constant value bias (folded convention).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from .errors import InputError
from .models import Decoder

ABLATIONS = ("resample", "mean", "zero")


def replacement(
    decoder: Decoder,
    layer: int,
    ablation: str,
    *,
    donor_z: Float[Tensor, "prompt position head d_head"] | None,
    mean_z: Float[Tensor, "layer head d_head"] | None,
) -> Float[Tensor, "#prompt #position head d_head"]:
    """The z' that ablation puts in place of a layer's z."""
    part = decoder.layers[layer]
    if ablation == "resample":
        assert donor_z is not None, "resample ablation without donors"
        return donor_z
    if ablation == "mean":
        assert mean_z is not None, "mean ablation without means"
        return mean_z[layer].to(part.value_bias)[None, None]
    return part.value_bias[None, None]


def check_ablation(
    ablation: str, tokens: Tensor, donors: Tensor | None, mean_z: Tensor | None, decoder: Decoder
) -> None:
    """Refuse an unknown ablation, or one whose baseline is missing or misshapen (InputError)."""
    if ablation not in ABLATIONS:
        raise InputError(f"ablation: {ablation!r} is not one of {', '.join(ABLATIONS)}")
    if (donors is not None) != (ablation == "resample"):
        need = "needs donors" if ablation == "resample" else "takes no donors"
        raise InputError(f"ablation: {ablation} {need}: tokens of the same shape")
    if donors is not None and donors.shape != tokens.shape:
        raise InputError(
            f"donors: shape {list(donors.shape)} differs from tokens {list(tokens.shape)}"
        )
    if mean_z is not None and ablation != "mean":
        raise InputError(f"mean_z: {ablation} ablation takes no means")
    shape = (decoder.n_layers, decoder.n_heads, decoder.d_head)
    if mean_z is not None and tuple(mean_z.shape) != shape:
        raise InputError(f"mean_z: shape {list(mean_z.shape)}; this model has {list(shape)}")
