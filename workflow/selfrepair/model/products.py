"""Dot products in float32 at least, whatever number format a model has."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def dot(
    left: Float[Tensor, "*batch d_model"], right: Float[Tensor, "*batch d_model"]
) -> Float[Tensor, "*batch"]:
    """Dot product over the last axis, multiplied and summed in float32 at least."""
    dtype = sum_dtype(left.dtype)
    return (left.to(dtype) * right.to(dtype)).sum(-1)


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums and products are taken in: float32, or float64 for float64."""
    return dtype if dtype == torch.float64 else torch.float32
