"""What fits into a device's memory: planned before a sweep, halved where the plan was too bold."""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
import torch

from ..errors import InputError
from .decoder import Decoder
from .sizes import Shape, chunk_tokens, prompts_at_once

Result = TypeVar("Result")

log = logging.getLogger(__name__)


def attempt(work: Callable[[], Result]) -> Result | None:
    """What `work` returns, or None, with everything that it held released, if memory ran out."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    release_memory()  # the failed work's tensors, out of reach only now that its traceback is gone
    return None


def release_memory() -> None:
    """Give free memory back to the system: kept by the allocator in small pieces, it may not hold even
    half of what failed."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not every C library has it
        if trim:
            trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device has no memory left."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # On a CPU torch and oneDNN raise plain RuntimeErrors.
    said = ("can't allocate memory", "not enough memory", "could not create a primitive")
    return any(text in str(error) for text in said)


class BatchLimit:
    """The most that is worked on at once: as planned, and half of it whenever memory runs out.

    what: "prompts recorded" or "tokens replayed", for what is said about it.
    """

    def __init__(self, size: int, *, what: str, device: torch.device) -> None:
        self.size, self._what, self._device = size, what, device

    def halve(self, failed: int, *, least: int) -> None:
        """Go on with half of what did not fit.

        Raises:
            InputError: what did not fit is the least that can be done at once.
        """
        if failed <= least:
            raise InputError(
                f"out of memory on {self._device} with {failed} {self._what} at once, the least "
                "possible; use a smaller dtype, shorter prompts, or a device with more memory"
            )
        half = max(least, failed // 2)
        if half < self.size:
            self.size = half
            log.warning(
                "out of memory on %s with %d %s at once: going on with %d",
                self._device,
                failed,
                self._what,
                half,
            )


def free_bytes(device: torch.device) -> float:
    """Memory that a device has left for this process, in bytes."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(free + cached)
    return min(float(psutil.virtual_memory().available), _cgroup_bytes())


def _cgroup_bytes() -> float:
    """What a container or batch job may still take (cgroup version 2), infinite without a limit."""
    try:
        group = Path("/proc/self/cgroup").read_text(encoding="utf-8").split("::", 1)[1].strip()
        folder = Path(f"/sys/fs/cgroup{group}")
        limit = (folder / "memory.max").read_text(encoding="utf-8").strip()
        used = (folder / "memory.current").read_text(encoding="utf-8")
        return float("inf") if limit == "max" else float(limit) - float(used)
    except (OSError, IndexError, ValueError):
        return float("inf")


def refuse_weights(shape: Shape, name: str, *, dtype: str, device: torch.device) -> None:
    """Refuse a model whose weights alone do not fit, before they are read (InputError)."""
    needed, free = shape.weight_bytes(dtype, device.type), free_bytes(device)
    if needed > free:
        raise InputError(
            f"model {name}: its {shape.parameters / 1e9:.2f} B parameters take {needed / 1e9:.1f} GB in "
            f"{dtype}, but {device} has {free / 1e9:.1f} GB free; use dtype bfloat16 (half of float32), "
            "a smaller model, or a device with more memory"
        )


def shape_of_decoder(model: Decoder) -> Shape:
    """The sizes of a loaded model, from its modules."""
    layer = model.layers[0]
    attention = layer.w_o.shape[0] * layer.w_o.shape[1]
    mlp = sum(parameter.numel() for parameter in layer.mlp.parameters())
    d_mlp = layer.neurons.w_out.shape[0] if layer.neurons else mlp // (2 * model.d_model)
    return Shape(
        layers=model.n_layers,
        heads=model.n_heads,
        d_model=model.d_model,
        d_mlp=d_mlp,
        vocabulary=model.vocabulary,
        kv_heads=model.parts.n_key_value_heads,
        d_head=attention // model.n_heads,
        parallel=layer.parallel,
    )


def fit(model: Decoder, positions: int, *, batch: int | None, chunk: int | None) -> tuple[int, int]:
    """Prompts to record and rows to replay at once, so that both fit into what memory is left.

    Args:
        positions: of a prompt; batch: prompts wanted; chunk: rows wanted; both by default as many as suit
            the device.
    Returns:
        batch and chunk, lowered where memory asks for it.
    Raises:
        InputError: a size below one; or not even one prompt and one row fit.
    """
    for name, value in (("batch", batch), ("chunk", chunk)):
        if value is not None and value < 1:
            raise InputError(f"{name}: {value} rows at once; take at least 1")
    prompts = batch or prompts_at_once(model.device.type)
    rows = chunk or max(1, chunk_tokens(model.device.type) // positions)
    wanted = prompts, rows
    shape, dtype, free = shape_of_decoder(model), model.dtype_name, free_bytes(model.device)
    workers = torch.get_num_threads() if model.device.type == "cpu" else 1

    def needed(prompts: int, rows: int) -> float:
        return shape.working_bytes(
            dtype, positions=positions, prompts=prompts, rows=rows, workers=workers
        )

    if needed(1, 1) > free:
        raise InputError(
            f"model {model.name}: beside its weights, one prompt of {positions} positions needs "
            f"{needed(1, 1) / 1e9:.2f} GB in {dtype}, but {model.device} has {free / 1e9:.2f} GB free; "
            "use a smaller dtype, shorter prompts, or a device with more memory"
        )
    while needed(prompts, rows) > free:  # halve whichever takes more
        if rows == 1 or (prompts > 1 and needed(prompts, 1) > needed(1, rows)):
            prompts //= 2
        else:
            rows //= 2
    if (prompts, rows) != wanted:
        log.warning(
            "%.1f GB free on %s: %d prompts recorded and %d rows replayed at once",
            free / 1e9,
            model.device,
            prompts,
            rows,
        )
    return prompts, rows
