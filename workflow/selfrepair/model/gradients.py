"""A replay that gradients flow back through, to the attention output that it starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .decoder import Decoder
from .packed import PackedLinear, PackedMLP
from .replay import Replay

_ACTIVATIONS: dict[tuple[str, str], Callable[[Tensor], Tensor]] = {
    ("swish", ""): nn.functional.silu,
    ("gelu", "tanh"): partial(nn.functional.gelu, approximate="tanh"),
    ("gelu", "none"): nn.functional.gelu,
    ("relu", ""): nn.functional.relu,
}


class GradientReplay(Replay):
    """A replay of the layers after an ablation as torch's autograd sees it.

    The weights have no gradients, so a backward pass costs about what the forward pass does. Packed
    products (`packed`), which torch cannot differentiate, get a backward pass by the same weights while
    `differentiable` lasts.
    """

    def final_residual(
        self,
        layer: int,
        *,
        residual: Float[Tensor, "row position d_model"],
        attention_out: Float[Tensor, "row position d_model"],
        unchanged_out: Float[Tensor, "row position d_model"] | None,
    ) -> Float[Tensor, "row position d_model"]:
        """The final residual of rows whose attention output at `layer` is `attention_out`; arguments as
        for `Replay.layer_output`. Call `learn_arguments_of` for their length before."""
        stream = unchanged_out
        if stream is None:
            stream = self._call(layer, residual, attention_out=attention_out)
        for later in range(layer + 1, self.decoder.n_layers):
            stream = self._call(later, stream)
        return stream


@contextmanager
def differentiable(decoder: Decoder) -> Iterator[None]:
    """Let gradients through the decoder's packed products while the block lasts."""
    changed: list[nn.Module] = []
    for module in decoder.network.modules():
        if isinstance(module, PackedLinear):
            module.__dict__["forward"] = partial(_linear, module)
        elif isinstance(module, PackedMLP):
            module.__dict__["forward"] = partial(_mlp, module)
        else:
            continue
        changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.__dict__["forward"]


class _PackedProduct(torch.autograd.Function):
    """x W^T + b forwards by the packed weights, backwards by the plain ones."""

    @staticmethod
    def forward(context: Any, x: Tensor, module: PackedLinear) -> Tensor:
        context.weight = module.weight
        return PackedLinear.forward(module, x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ context.weight, None


def _linear(module: PackedLinear, x: Tensor) -> Tensor:
    return _PackedProduct.apply(x, module)


def _mlp(module: PackedMLP, x: Tensor) -> Tensor:
    """What a packed MLP computes, its activation apart from the product."""
    first, *gates, down = (getattr(module, name) for name in module._names)
    neurons = _ACTIVATIONS[module._activation](first(x))
    for up in gates:
        neurons = neurons * up(x)
    return down(neurons)
