"""Where a study's models come from. Weights in GGUF format become a Hugging Face directory, once.

torch and transformers are loaded only to convert weights, so that a plan can look for what is there.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..errors import InputError
from ..files.parts import Part, join_parts
from ..files.storage import file_sha256, read_json, write_json
from ..files.wheels import Wheel

# The file in a converted model's folder that tells what its weights were made of.
RECORD = "weights.json"
# Counted up when conversion makes something else of the same file: folders of before are then not used.
_CONVERSION = 2

# An entry under `models` in a study's config.
Model = Mapping[str, Any]


def is_converted(model: Model) -> bool:
    """Whether its weights are in GGUF format instead of one that transformers loads as it is."""
    return any(key in model for key in ("gguf", "wheel", "parts"))


def block_formats() -> list[str]:
    """The block formats that weights can be rounded to once more: those that the gguf package writes and
    reads."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, dequantize, quantize

    found = []
    for kind, (block, _) in GGML_QUANT_SIZES.items():
        if block == 1:  # a number format, not one of blocks
            continue
        try:
            dequantize(quantize(np.zeros((1, block), np.float32), kind), kind)
        except NotImplementedError:
            continue
        found.append(kind.name)
    return found


def model_location(model: Model, wheels: Mapping[str, Wheel], cache: Path, *, key: str) -> str:
    """Hub name or directory of a model; one in GGUF format is fetched and converted on first use.

    Args:
        model: its entry under `models` in a study's config; key: its key there, for messages.
        wheels: by name.
        cache: the folder for wheels and what is made of them.
    Raises:
        InputError: the file or a part of it is missing, is not the pinned one, or cannot be converted.
    """
    if not is_converted(model):
        return str(model["name"])
    source = _file_here(model, key) if "gguf" in model else _file_in_wheels(model, wheels)
    folder = cache / "models" / source.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            unfinished = folder.with_name(f".{folder.name}.tmp")
            shutil.rmtree(unfinished, ignore_errors=True)  # left by a job that was killed
            unfinished.mkdir()
            try:
                # Renamed when it is complete: a folder that is there is whole.
                _convert(model, source, unfinished, cache, key).replace(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return str(folder)


def converted_folder(model: Model, wheels: Mapping[str, Wheel], cache: Path) -> Path | None:
    """The Hugging Face directory that GGUF weights are converted to; it need not exist yet.

    None if that depends on a file that is not on this machine.
    """
    if "gguf" not in model:
        return cache / "models" / _file_in_wheels(model, wheels).folder
    from ..files.hub import cached_file

    path = cached_file(model.get("name"), model["gguf"], model.get("revision"))
    return None if path is None else cache / "models" / _source_of(model, path).folder


def weights_record(location: str) -> dict[str, Any] | None:
    """What the weights of a converted model were made of; None for others.

    location: as `model_location` gives it.
    """
    path = Path(location, RECORD)
    return read_json(path) if path.is_file() else None


@dataclass(frozen=True)
class _Source:
    """A GGUF file: there, or to be joined of parts in wheels.

    name: for people; identity: what no other file has in common with it; requantise: the format that its
    weights are rounded to once more, if any.
    """

    name: str
    identity: tuple[str, ...]
    file: Path | None = None
    commit: str | None = None
    parts: tuple[Part, ...] = ()
    requantise: str | None = None

    @property
    def folder(self) -> str:
        """The name of the folder that it is converted to."""
        again = (self.requantise,) if self.requantise else ()
        text = "\n".join((str(_CONVERSION), *self.identity, *again))
        return "-".join((self.name, *again, hashlib.sha256(text.encode()).hexdigest()[:12]))


def _file_in_wheels(model: Model, wheels: Mapping[str, Wheel]) -> _Source:
    parts = tuple(
        Part(wheels[entry["wheel"]], entry["member"]) for entry in model.get("parts", [model])
    )
    first = parts[0].wheel
    return _Source(
        f"{first.name}-{first.version}",
        tuple(f"{part.wheel.sha256} {part.member}" for part in parts),
        parts=parts,
        requantise=model.get("requantise"),
    )


def _file_here(model: Model, key: str) -> _Source:
    """The GGUF file that an entry names, fetched if it is on the hub."""
    from ..files.hub import locate_file

    try:
        path = locate_file(model.get("name"), model["gguf"], revision=model.get("revision"))
    except InputError as error:
        raise InputError(f"models.{key}: {error}") from error
    return _source_of(model, path)


def _source_of(model: Model, path: Path) -> _Source:
    """path: of the GGUF file, on this machine."""
    from ..files.hub import commit_of

    commit = commit_of(path) if "name" in model else None
    if commit is not None:
        identity = (str(model["name"]), commit, str(model["gguf"]))
    else:
        # Content would have to be read, all of it, in every job: a file that was replaced has another time.
        seen = path.stat()
        identity = (str(path.resolve()), str(seen.st_size), str(seen.st_mtime_ns))
    again = model.get("requantise")
    return _Source(path.stem, identity, file=path, commit=commit, requantise=again)


def _convert(model: Model, source: _Source, folder: Path, cache: Path, key: str) -> Path:
    """The finished Hugging Face directory, in a folder for what is not finished."""
    pinned, file = model.get("sha256"), source.file
    if file is None:
        file = folder / "model.gguf"
        sha256 = join_parts(source.parts, cache, file, sha256=pinned, name=key)
    else:
        sha256 = file_sha256(file)
        if pinned not in (None, sha256):
            raise InputError(
                f"models.{key}.gguf: SHA-256 of {file} is {sha256}, `sha256` pins {pinned}; fetch it "
                "again, or correct `sha256`"
            )
    from .gguf import convert_gguf

    converted = folder / "converted"
    content = convert_gguf(file, converted, name=key, requantise=source.requantise)
    origin = {"file": source.name, "sha256": sha256, "commit": source.commit}
    write_json(converted / RECORD, origin | content)
    return converted
