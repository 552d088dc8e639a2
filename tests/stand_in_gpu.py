"""A stand-in for a CUDA device on a machine without one.

Its tensors say that they are on cuda:0 and hold their values on the CPU. Whatever would fail on a GPU because
tensors of two devices meet fails here too; what would wait for the GPU, a copy to or from it or a decision on a
value, is noted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("cuda:0")
_aten = torch.ops.aten
# Operators whose result, or the size of it, the CPU must know before it goes on.
_WAITING = (
    _aten._local_scalar_dense.default,
    _aten.is_nonzero.default,
    _aten.nonzero.default,
    _aten.masked_select.default,
    _aten.equal.default,
    _aten.unique_dim.default,
    _aten._unique2.default,
)
_INDEXING = (_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default)


class GpuTensor(Tensor):
    """A tensor that says it is on the GPU; `held` has its values.

    To torch's C++ side it is on the meta device, which every build of torch knows.
    """

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> GpuTensor:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",
        )
        made.held = held
        return made

    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    is_meta = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self) -> Any:
        StandIn.wait("tolist")
        return self.held.tolist()

    def __getitem__(self, index: Any) -> Any:
        # Torch would make a tensor of a list on the meta device, without its values.
        parts = index if isinstance(index, tuple) else (index,)
        if any(isinstance(part, list) for part in parts):
            StandIn.wait("index from a list")
            parts = tuple(
                torch.tensor(part, device=DEVICE) if isinstance(part, list) else part
                for part in parts
            )
        return super().__getitem__(parts)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class StandIn(TorchDispatchMode):
    """Tensors that are made on "cuda" in the block are GpuTensors; waits: what the GPU was waited for."""

    waits: ClassVar[list[str]] = []

    @classmethod
    def wait(cls, what: str) -> None:
        cls.waits.append(what)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _on_gpu(device: Any) -> bool:
    return torch.device(device).type in ("cuda", "meta")


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, GpuTensor)]
    kwargs = dict(kwargs)
    device = kwargs.get("device")
    result_there = bool(there) if device is None else _on_gpu(device)
    if device is not None:
        kwargs["device"] = "cpu"
    if func is _aten._to_copy.default or func is _aten.copy_.default:
        kwargs.pop("non_blocking", None)
        in_place = func is _aten.copy_.default
        source = args[1] if in_place else args[0]
        arrives = isinstance(args[0], GpuTensor) if in_place else result_there
        if isinstance(source, GpuTensor) != arrives:
            StandIn.wait("copy to the GPU" if arrives else "copy to the CPU")
    else:
        _check_devices(func, args, tensors, there)
        indexed_by_mask = func in _INDEXING and any(tensor.dtype == torch.bool for tensor in there)
        if there and (func in _WAITING or indexed_by_mask):
            StandIn.wait(str(func))
    results = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    if not result_there:
        return results
    known = {
        id(tensor.held): tensor for tensor in there
    }  # in-place operators return their argument

    def wrapped(result: Any) -> Any:
        if not isinstance(result, Tensor) or isinstance(result, GpuTensor):
            return result
        return known[id(result)] if id(result) in known else GpuTensor(result)

    return tree_map(wrapped, results)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, GpuTensor) else value


def _check_devices(func: Any, args: Any, tensors: list[Tensor], there: list[GpuTensor]) -> None:
    """As CUDA does: numbers may lie on the CPU, and indices, which are copied; nothing else may."""
    here = [t for t in tensors if not isinstance(t, GpuTensor) and t.ndim]
    if not there or not here:
        return
    if func in _INDEXING and isinstance(args[0], GpuTensor):
        indices = {id(leaf) for leaf in tree_leaves(args[1])}
        if all(id(tensor) in indices for tensor in here):
            StandIn.wait("index from the CPU")
            return
    shapes = [tuple(tensor.shape) for tensor in here]
    raise RuntimeError(f"{func}: tensors of shapes {shapes} are on the CPU, others on the GPU")


@contextmanager
def stand_in_gpu() -> Iterator[None]:
    """In the block, torch has a CUDA device."""
    make = torch.tensor

    def tensor(data: Any, *, device: Any = None, **options: Any) -> Tensor:
        made = make(data, **options)
        return made if device is None or not _on_gpu(device) else made.to(device)

    plenty = 80 * 2**30
    with ExitStack() as stack:
        for name, stand_in in (
            ("_lazy_init", lambda: None),
            ("empty_cache", lambda: None),
            ("mem_get_info", lambda device=None: (plenty, plenty)),
            ("memory_reserved", lambda device=None: 0),
            ("memory_allocated", lambda device=None: 0),
        ):
            stack.enter_context(mock.patch.object(torch.cuda, name, stand_in))
        stack.enter_context(mock.patch.object(torch, "tensor", tensor))
        stack.enter_context(StandIn())
        StandIn.waits.clear()
        yield


def load_on_gpu(folder: Path, *, dtype: str = "float32") -> Any:
    """The model of a directory on the stand-in; outside of the block, as transformers loads it on the CPU."""
    import selfrepair
    from selfrepair.model import loading
    from selfrepair.model.decoder import DTYPES
    from selfrepair.model.finding import find_parts

    parts = find_parts(folder)
    # Built before the block begins: transformers itself uses the meta device while it reads weights.
    network = loading._plain_network(
        folder, name=str(folder), dtype=DTYPES[dtype], device=torch.device("cpu")
    )
    read = mock.patch.object(loading, "_plain_network", return_value=_moved(network))
    known = mock.patch.object(loading, "_device", torch.device)
    with read, known, stand_in_gpu():
        return selfrepair.load_model(folder, device="cuda", dtype=dtype, parts=parts)


def _moved(network: nn.Module) -> nn.Module:
    """The network with every parameter and buffer on the stand-in; what is shared stays shared."""
    moved: dict[int, Tensor] = {}

    def there(tensor: Tensor) -> Tensor:
        if id(tensor) not in moved:
            held = GpuTensor(tensor.detach())
            is_parameter = isinstance(tensor, nn.Parameter)
            moved[id(tensor)] = nn.Parameter(held, requires_grad=False) if is_parameter else held
        return moved[id(tensor)]

    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = there(tensor)
    return network
