"""Reading a released table, which is a pickled torch tensor, without running what it says.

A pickle may call any function when it is opened. So a file is opened only if its SHA-256 is the pinned
one, and then by an unpickler that knows three names, and answers them with what cannot do more than
make a matrix out of numbers. The numbers themselves are a second pickle inside the first, which
torch's own safe loader reads.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32

from ..errors import InputError, first_line
from .fetch import MOST_BYTES, check_hash


def read_table(path: Path, *, sha256: str) -> Float32[torch.Tensor, "layer head"]:
    """The numbers of a released table: [layer, head], in logits or, for `percent_*`, 0..1.

    Raises:
        InputError: missing, over MOST_BYTES, another SHA-256 (checked before anything is
            interpreted), a name that no table needs, damaged, or no float32 matrix.
    """
    content = _content(path)
    check_hash(content, sha256, path)
    try:
        table = _TableUnpickler(io.BytesIO(content)).load()
    except Exception as error:  # damaged content makes an unpickler raise nearly anything
        # Quoted: the words may be the file's.
        raise _refusal(path, repr(first_line(error))) from None
    if type(table) is not torch.Tensor or table.dtype != torch.float32 or table.ndim != 2:
        raise _refusal(path, f"it holds a {type(table).__name__} that is no float32 [layer, head]")
    if not 0 < table.numel() * table.element_size() <= len(content):
        raise _refusal(path, f"it has no {table.numel()} numbers")
    return table.detach()


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); fetch it again") from error
    if len(content) > MOST_BYTES:
        raise InputError(f"{path}: more than {MOST_BYTES:,} bytes, no per-head table; correct it")
    return content


def _refusal(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path}: is not a table of numbers: {reason}; nothing in it was run, take the file that the"
        " authors released"
    )


class _TableUnpickler(pickle.Unpickler):
    """Answers the names in a released table with its own methods, and no other name at all.

    Methods, because an instruction of a pickle can set attributes of a function but none of a method.
    """

    def find_class(self, module: str, name: str, /) -> Any:
        known = {
            "torch.storage._load_from_bytes": self._numbers,
            "torch._utils._rebuild_tensor_v2": self._matrix,
            "collections.OrderedDict": OrderedDict,  # the tensor's hooks, of which there are none
        }
        wanted = f"{module}.{name}"
        if wanted not in known:
            raise pickle.UnpicklingError(f"it wants to call {wanted!r}")
        return known[wanted]

    def _numbers(self, content: bytes) -> Float32[torch.Tensor, " number"]:
        """In place of torch's function, which unpickles with full powers."""
        try:
            storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:  # torch's message advises to switch its safety off
            raise pickle.UnpicklingError("torch's safe loader refuses its numbers") from None
        return torch.empty(0, dtype=torch.float32).set_(storage)

    def _matrix(
        self,
        numbers: torch.Tensor,
        offset: int,
        size: tuple[int, ...],
        stride: tuple[int, ...],
        *_: object,
    ) -> torch.Tensor:
        """In place of torch's function, which would make up numbers where there are too few."""
        return numbers.as_strided(size, stride, offset)
