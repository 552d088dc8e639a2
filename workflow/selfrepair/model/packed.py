"""Linear layers whose weights are laid out once for oneDNN instead of at every call.

On x86 CPUs in float32 this is the same arithmetic 15 to 25 % faster (SmolLM2-135M's matrices on two Zen 4
cores: 175 against 210 GFLOP/s); elsewhere a layer stays what it is.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

# Tokens per call that the layout is chosen for; other sizes work too.
_TYPICAL_TOKENS = 1024


class PackedLinear(nn.Module):
    """y = x W^T + b with W packed; x: [..., in], y: [..., out]. Keeps `weight` [out, in] and `bias`."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.in_features, self.out_features = weight.shape[1], weight.shape[0]
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _TYPICAL_TOKENS)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")


# Activations that oneDNN applies inside a product: name and approximation.
_ACTIVATIONS = (("swish", ""), ("gelu", "tanh"), ("gelu", "none"), ("relu", ""))


class PackedMLP(nn.Module):
    """down(act(up(x))), or gated down(act(gate(x)) * up(x)), with the activation inside the first
    product and nothing copied. Keeps the projections as submodules under their own names.

    The passes over the neurons that this saves took 12 to 15 % of SmolLM2-135M's MLP and 26 % of
    GPT-2's, whose GELU is written out in Python (two Zen 4 cores).
    """

    def __init__(self, projections: dict[str, PackedLinear], activation: tuple[str, str]) -> None:
        super().__init__()
        for name, projection in projections.items():
            self.add_module(name, projection)
        self._names, self._activation = tuple(projections), activation

    def forward(self, x: Tensor) -> Tensor:
        first, *others = (getattr(self, name) for name in self._names)
        kind, approximation = self._activation
        neurons = torch.ops.mkldnn._linear_pointwise(
            x, first._packed, first.bias, kind, [], approximation
        )
        *gates, down = others
        for up in gates:
            neurons.mul_(up(x))
        return down(neurons)


def pack(network: nn.Module, *, mlps: Collection[str], but: Collection[str] = ()) -> None:
    """Replace a model's linear layers, MLPs and RMSNorms by their faster twins, where they have one.

    mlps: names of the MLPs; but: names of layers that are used too rarely to keep their weights twice.
    """
    twins: dict[nn.Module, nn.Module] = {}
    for name, module in [*network.named_modules()]:
        if name not in but:
            twins[module] = fused_norm(packed(module))
    _replace(network, twins)
    _replace(network, {m: packed_mlp(m) for m in map(network.get_submodule, mlps)})


def _replace(network: nn.Module, twins: dict[nn.Module, nn.Module]) -> None:
    for module in [*network.modules()]:
        for name, child in module.named_children():
            module._modules[name] = twins.get(child, child)


def packed_mlp(module: nn.Module) -> nn.Module:
    """The packed twin of an MLP whose projections are packed, or the module itself.

    What the module computes decides: one that only looks like an MLP stays as it is.
    """
    found = {k: m for k, m in module.named_children() if isinstance(m, PackedLinear)}
    rest = [m for m in module.children() if not isinstance(m, PackedLinear)]
    if any(next(m.parameters(), None) is not None for m in rest):
        return module  # a whole block, say
    gated = [name for name in ("gate_proj", "up_proj", "down_proj") if name in found]
    names = gated if len(gated) == len(found) == 3 else list(found)
    if len(names) != (3 if gated else 2) or not _chained([found[name] for name in names]):
        return module
    projections = {name: found[name] for name in names}
    scales = torch.tensor([[0.1], [1.0], [3.0], [10.0]])  # small ones hardly tell GELUs apart
    generator = torch.Generator().manual_seed(0)
    probe = scales * torch.randn(4, found[names[0]].in_features, generator=generator)
    try:
        expected = module(probe)
    except TypeError:  # it takes more than what it normalises, as BLOOM's takes the residual stream
        return module
    if not torch.is_tensor(expected) or expected.shape != (4, found[names[-1]].out_features):
        return module
    twins = [PackedMLP(projections, activation).eval() for activation in _ACTIVATIONS]
    errors = [float((twin(probe) - expected).abs().max()) for twin in twins]
    best = min(range(len(twins)), key=errors.__getitem__)
    return twins[best] if errors[best] <= 1e-5 * float(expected.abs().max()) else module


def _chained(projections: list[PackedLinear]) -> bool:
    """Whether the last map reads what all before it write."""
    *before, down = projections
    return all(
        (p.in_features, p.out_features) == (before[0].in_features, down.in_features) for p in before
    )


def fused_norm(module: nn.Module) -> nn.Module:
    """torch's own RMSNorm in place of a float32 one written out in Python (seven times as fast), or the
    module itself if it computes anything else."""
    weight, eps = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
    if not torch.is_tensor(weight) or eps is None or weight.ndim != 1:
        return module
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        return module
    twin = nn.RMSNorm(weight.shape[0], eps=eps)
    twin.weight = nn.Parameter(weight.detach(), requires_grad=False)
    probe = torch.randn(4, weight.shape[0], generator=torch.Generator().manual_seed(0))
    same = torch.allclose(twin(probe), module(probe), atol=1e-5, rtol=1e-5)
    return twin.eval() if same else module


def packed(module: nn.Module) -> nn.Module:
    """The packed twin of a linear layer, or the module itself where packing does not apply."""
    plain = type(module).forward  # that of a subclass may compute something else
    if isinstance(module, nn.Linear) and plain is nn.Linear.forward:
        weight = module.weight.detach()
    elif isinstance(module, Conv1D) and plain is Conv1D.forward:
        weight = module.weight.detach().T
    else:
        return module
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not _available():
        return module
    return PackedLinear(weight, None if module.bias is None else module.bias.detach())


def _available() -> bool:
    return bool(
        torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
    )
