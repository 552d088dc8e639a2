"""Weights and settings from outside, looked at before anything loads them: in one line, in bounded memory.

Headers and JSON alone are trusted to nobody; the numbers of a tensor are read in pieces. No torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, first_line

# More than any model has: 126 layers, a tokenizer.json of 40 MB, some 10,000 tensors of experts in a file.
MOST_LAYERS = 1000
_JSON_BYTES = 1 << 28
_HEADER_BYTES = 1 << 25
# Bytes of a tensor that are looked at together.
_PIECE_BYTES = 1 << 24
# The bits that are all set in NaN and infinity alone, by the number format of safetensors.
_EXPONENTS: dict[str, tuple[Any, int]] = {
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
    "F32": (np.uint32, 0x7F800000),
    "F64": (np.uint64, 0x7FF0000000000000),
}


def read_settings(path: Path, *, name: str) -> dict[str, Any]:
    """A JSON object of a model; {} if there is no such file.

    name: of the model, for messages.
    Raises:
        InputError: it is too large, too deep, or no JSON object.
    """
    if not path.is_file():
        return {}
    where = f"model {name}: its {path.name}"
    if path.stat().st_size > _JSON_BYTES:
        raise InputError(f"{where} has over {_JSON_BYTES >> 20} MB; {_AGAIN}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{where} cannot be read ({first_line(error)}); {_AGAIN}") from error
    return found


_AGAIN = "fetch or save the model again"


def weight_files(folder: Path, *, name: str, pickle: bool = False) -> list[Path]:
    """The safetensors files that hold a model's weights; none where they are pickled and may be.

    Args:
        name: of the model, for messages.
        pickle: whether PyTorch's own format, a pickle, is allowed.
    Raises:
        InputError: no weights; pickled ones that are not allowed; an index that names files elsewhere.
    """
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        places = read_settings(index, name=name).get("weight_map")
        files = set(places.values()) if isinstance(places, dict) else {None}
        for file in sorted(files, key=str):
            if not isinstance(file, str) or Path(file).name != file or file in ("", ".", ".."):
                raise InputError(
                    f"model {name}: {index.name} names {file!r}, no file beside it; {_AGAIN}"
                )
            if not (folder / file).is_file():
                raise InputError(
                    f"model {name}: {index.name} names {file}, which is missing; {_AGAIN}"
                )
        return [folder / str(file) for file in sorted(files, key=str)]
    if any(folder.glob("pytorch_model*.bin")):
        if pickle:
            return []
        raise InputError(
            f"model {name}: its weights are pickled (pytorch_model.bin), a format that can hold programs; "
            "save it as safetensors, or allow it with `pickle: true` (it is then read without running any)"
        )
    raise InputError(f"model {name}: no model.safetensors, nor an index of several, in {folder}")


def check_weight_file(path: Path, *, name: str, quantised: bool = False) -> None:
    """Look through a safetensors file without holding a tensor of it.

    Args:
        name: of the model, for messages.
        quantised: whether its config says how its integers are to be understood.
    Raises:
        InputError: its header is too long or wrong; a weight that is no floating-point number, NaN or
            infinite.
    """
    from safetensors import safe_open

    where = f"model {name}: {path.name}"
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
    if length > _HEADER_BYTES:
        raise InputError(
            f"{where} has a header of {length:,} bytes, more than any model needs ({_HEADER_BYTES:,}); {_AGAIN}"
        )
    try:
        # It checks that shapes and offsets agree, and that tensors cover the file without overlap.
        with safe_open(path, "np"):
            pass
        with path.open("rb") as stream:
            stream.seek(8)
            header = json.loads(stream.read(length))
    except Exception as error:  # the library has errors of its own for each kind of damage
        raise InputError(
            f"{where} cannot be read as safetensors ({first_line(error)}); {_AGAIN}"
        ) from error
    for tensor, entry in header.items():
        if tensor == "__metadata__":
            continue
        kind = entry["dtype"]
        if kind not in _EXPONENTS and tensor.endswith(".weight") and not quantised:
            raise InputError(
                f"{where} has {_shown(tensor)} in {kind}, and config.json states no quantization_config; "
                "name a model in a floating-point format"
            )
        if kind in _EXPONENTS and _has_nonfinite(
            path, 8 + length, entry["data_offsets"], _EXPONENTS[kind]
        ):
            raise InputError(
                f"{where} has NaN or infinity in {_shown(tensor)}: every number would be wrong; {_AGAIN}"
            )


def _has_nonfinite(path: Path, body: int, span: list[int], kind: tuple[Any, int]) -> bool:
    dtype, exponent = np.dtype(kind[0]), kind[1]
    return any(
        bool((piece & exponent == exponent).any()) for piece in _pieces(path, body, span, dtype)
    )


def _pieces(path: Path, body: int, span: list[int], dtype: np.dtype[Any]) -> Iterator[np.ndarray]:
    """The numbers of a tensor, some at a time."""
    count, step = (span[1] - span[0]) // dtype.itemsize, _PIECE_BYTES // dtype.itemsize
    for first in range(0, count, step):
        offset = body + span[0] + first * dtype.itemsize
        yield np.fromfile(path, dtype, min(step, count - first), offset=offset)


def _shown(name: str) -> str:
    """The name of a tensor, which may be anything, as it fits into a line."""
    return ascii(name[:80])[1:-1]
