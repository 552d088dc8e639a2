"""Norms, and how a sublayer's output enters the residual stream: found by values, not by names."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import InputError
from .products import dot, sum_dtype


@dataclass
class Norm:
    """y = gain * (x - [centred] mean(x)) / scale + bias: a LayerNorm if centred, else an RMSNorm.

    gain, bias: [d_model]; scale is S of docs/method.md section 1, or a post-norm's sigma of section 3.
    """

    module: nn.Module
    gain: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]
    eps: float
    centred: bool

    def scale(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """sqrt(var + eps) of the centred x, or sqrt(mean square + eps) for RMSNorm."""
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        return (x.square().mean(-1) + self.eps).sqrt()

    def apply(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        scale = self.scale(x)[..., None]
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        return self.gain * x / scale + self.bias


@dataclass
class Write:
    """How a sublayer's raw output a enters the residual stream.

    As factor * a (Granite's residual multiplier; 1 in most models), or, where the block normalises it,
    as norm(a) = gain * a / scale(a): docs/method.md section 3. The norm is an RMSNorm without a bias.
    """

    norm: Norm | None = None
    factor: float = 1.0

    def scale(self, raw: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"] | None:
        """The post-norm's scale of a raw output, in float32 at least; None without a post-norm."""
        return None if self.norm is None else self.norm.scale(raw.to(sum_dtype(raw.dtype)))

    def through(
        self,
        vector: Float[Tensor, "*batch d_model"],
        scale: Float[Tensor, "*#batch"] | None,
    ) -> Float[Tensor, "*batch d_model"]:
        """gain * vector / scale, or factor * vector.

        Of a part of the raw output: what it adds to the stream at that scale. Of a direction u of the
        stream: the direction that the raw output sees, because (gain * a / scale) . u is symmetric.
        """
        if self.norm is not None:
            assert scale is not None, "a post-norm needs its scale"
            dtype = sum_dtype(vector.dtype)
            seen = vector.to(dtype) * self.norm.gain.to(dtype) / scale.to(dtype)[..., None]
            return seen.to(vector.dtype)
        return vector if self.factor == 1 else self.factor * vector

    def projection(
        self,
        raw: Float[Tensor, "*batch d_model"],
        directions: Float[Tensor, "*batch d_model"],
        scale: Float[Tensor, "*batch"] | None,
    ) -> Float[Tensor, "*batch"]:
        """Dot product of the directions with what a raw output adds to the stream at that scale."""
        if self.norm is not None:
            assert scale is not None, "a post-norm needs its scale"
            return self._gained(raw, directions) / scale
        product = dot(raw, directions)
        return product if self.factor == 1 else self.factor * product

    def rescaled(
        self,
        raw: Float[Tensor, "*batch d_model"],
        directions: Float[Tensor, "*batch d_model"],
        clean_scale: Float[Tensor, "*batch"] | None,
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Of a post-norm: `projection` at the clean scale, and what the changed scale adds to it,
        (gain * raw . u) (1 / scale(raw) - 1 / clean scale)."""
        own_scale = self.scale(raw)
        assert own_scale is not None
        assert clean_scale is not None, "a post-norm needs its clean scale"
        product = self._gained(raw, directions)
        return product / clean_scale, product * (1 / own_scale - 1 / clean_scale)

    def change(
        self,
        raw: Float[Tensor, "*batch d_model"],
        change: Float[Tensor, "*batch d_model"],
    ) -> Float[Tensor, "*batch d_model"]:
        """What a change of the raw output `raw` does to the stream, a changed scale included."""
        if self.norm is None:
            return self.through(change, None)
        return self.norm.module(raw + change) - self.norm.module(raw)

    def _gained(self, raw: Tensor, directions: Tensor) -> Tensor:
        assert self.norm is not None
        dtype = sum_dtype(directions.dtype)
        return dot(raw, directions.to(dtype) * self.norm.gain.to(dtype))


def norm_of(module: Any, *, values: Tensor, what: str, like: Norm | None = None) -> Norm:
    """Tell LayerNorm from RMSNorm, and gain w from 1 + w or none, by what the module computes.

    Args:
        values: [..., d_model], a weight of the model: its dtype, device and width.
        what: the module in words, for the message.
        like: the norm in the same place of another model of the architecture, for a module on the meta
            device, which computes nothing.
    Raises:
        InputError: it computes anything else.
    """
    eps = next(
        (float(getattr(module, k)) for k in ("eps", "variance_epsilon") if hasattr(module, k)), 0.0
    )
    weight, own_bias = getattr(module, "weight", None), getattr(module, "bias", None)
    width = values.shape[-1]
    gain = values.new_ones(width) if weight is None else weight.detach()
    bias = values.new_zeros(width) if own_bias is None else own_bias.detach()
    if like is not None:
        return Norm(module, gain, bias, eps, like.centred)
    generator = torch.Generator().manual_seed(0)
    probe = (torch.randn(8, width, generator=generator) + 0.5).to(values.device)
    expected = copy.deepcopy(module).float()(probe)
    for centred in (True, False):
        for shift in (0, 1):
            guess = Norm(module, gain.float() + shift, bias.float(), eps, centred)
            if torch.allclose(guess.apply(probe), expected, rtol=1e-4, atol=1e-4):
                return Norm(module, gain + shift, bias, eps, centred)
    raise InputError(f"{what} is neither a LayerNorm nor an RMSNorm")
