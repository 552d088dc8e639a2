"""Models from outside, vetted before they are measured: files first, then whether they are a whole model.

What is refused here would otherwise run code, take hours or all memory, or, worst, give numbers: transformers
fills weights that a file lacks with random values, and attention on a CPU turns NaN into zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

from ..errors import InputError, first_line
from ..files.hub import locate_file
from ..files.weight_files import (
    MOST_LAYERS,
    check_weight_file,
    read_settings,
    weight_files,
)
from ..files.wheels import Wheel
from .sizes import shape_from
from .weights import converted_folder, is_converted, model_location

# Tensors and entries in a GGUF file's header: more than any has (vocabularies are one entry).
_MOST_TENSORS = 100_000


def vet_settings(folder: Path, *, name: str) -> PreTrainedConfig:
    """A model's config, if reading it and its tokenizer runs nothing and its sizes are a model's.

    Raises:
        InputError: it asks for code of its own, or for a kernel from elsewhere; it is damaged; its sizes
            are no model's.
    """
    stated = read_settings(folder / "config.json", name=name)
    of_tokenizer = read_settings(folder / "tokenizer_config.json", name=name)
    for key, value in _all_entries(stated):
        if key.endswith("attn_implementation") and "/" in str(value):
            raise InputError(
                f"model {name}: config.json asks for a kernel from elsewhere ({key}: {str(value)[:80]!r}), "
                "which is never run; delete the key"
            )
    quantised = stated.get("quantization_config")
    method = quantised.get("quant_method") if isinstance(quantised, Mapping) else quantised
    known = {*AUTO_QUANTIZER_MAPPING, "bitsandbytes"}  # whose keys there say how many bits, too
    if "quantization_config" in stated and str(method) not in known:
        raise InputError(
            f"model {name}: its weights are quantised by {str(method)[:80]!r}, which transformers does not "
            "know; name a model in a floating-point format"
        )
    config = _without_code(AutoConfig, folder, stated, name, "config.json")
    if "auto_map" in stated or "auto_map" in of_tokenizer:
        about = {**stated, **of_tokenizer}
        _without_code(AutoTokenizer, folder, about, name, "tokenizer_config.json")
    _check_sizes(config, name)
    return config


def vet_weights(folder: Path, *, name: str, pickle: bool = False) -> list[str]:
    """Look through a model's weights, and whether they are all there.

    Args:
        folder: with config.json, which was vetted.
        name: of the model, for messages; pickle: whether PyTorch's own format is allowed.
    Returns:
        Names of tensors that the model has no use for.
    Raises:
        InputError: pickled weights that are not allowed; damaged files; NaN or infinity; tensors of other
            shapes than the config says, or missing.
    """
    stated = read_settings(folder / "config.json", name=name)
    for path in weight_files(folder, name=name, pickle=pickle):
        check_weight_file(path, name=name, quantised="quantization_config" in stated)
    try:
        # On the meta device no tensor is read: names and shapes alone are compared.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            device_map="meta",
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=None if pickle else True,
            ignore_mismatched_sizes=True,  # told below, with the tensor's name
        )
    except Exception as error:
        from .finding import empty_network  # takes seconds, and is needed here alone

        # Of a config that no model can be built from, that is what is told.
        empty_network(AutoConfig.from_pretrained(folder, trust_remote_code=False), name=name)
        raise InputError(
            f"model {name}: its weights are not those of its config.json ({_told(error, stated)}); "
            "fetch or save the model again"
        ) from error
    found = loaded[1]
    for tensor, in_file, in_model in sorted(found["mismatched_keys"]):
        raise InputError(
            f"model {name}: its weights have {tensor} of shape {list(in_file)}, its config.json says "
            f"{list(in_model)}; fetch or save the model again"
        )
    missing = sorted(found["missing_keys"])
    if missing:
        raise InputError(
            f"model {name}: its weights lack {len(missing)} tensors ({missing[0]}"
            f"{', ...' if len(missing) > 1 else ''}), which would be random numbers; fetch or save the "
            "model again"
        )
    return sorted(found["unexpected_keys"])


def vet_gguf(path: Path, *, name: str) -> None:
    """Look through the header of a GGUF file before it is converted.

    Raises:
        InputError: it is no GGUF file; more tensors or layers than any model has; tensors without values,
            that overlap, or that lie outside the file.
    """
    where = f"models.{name}: {path.name}"
    with path.open("rb") as stream:
        start = stream.read(24)
    counts = int.from_bytes(start[8:16], "little"), int.from_bytes(start[16:24], "little")
    if start[:4] == b"GGUF" and max(counts) > _MOST_TENSORS:
        raise InputError(
            f"{where} claims {counts[0]:,} tensors and {counts[1]:,} entries, more than any model has; "
            "fetch it again, or name another"
        )
    try:
        with np.errstate(all="ignore"):  # sums of offsets that wrap around are looked for below
            reader = GGUFReader(path)
    except Exception as error:
        raise InputError(
            f"{where} cannot be read as a GGUF file ({first_line(error)}); fetch it again, or name another"
        ) from error
    for problem in _problems_of(reader, path.stat().st_size):
        raise InputError(f"{where} {problem}; fetch it again, or name another")


def vetted_location(
    model: Mapping[str, Any], wheels: Mapping[str, Wheel], cache: Path, *, key: str
) -> str:
    """As `weights.model_location`, but a GGUF file is looked through before it is converted. One in wheels is
    pinned by its hash.

    Raises:
        InputError: as `model_location` and `vet_gguf`; or a file that cannot be converted, for any reason.
    """
    folder = converted_folder(model, wheels, cache) if is_converted(model) else None
    if "gguf" in model and not (folder and folder.exists()):
        name, revision = model.get("name"), model.get("revision")
        vet_gguf(locate_file(name, model["gguf"], revision=revision), name=key)
    try:
        return model_location(model, wheels, cache, key=key)
    except (InputError, OSError):
        raise
    except Exception as error:  # sizes that contradict each other show in many ways
        raise InputError(
            f"models.{key}: its GGUF file cannot be converted ({first_line(error)}); fetch it again, or name "
            "another"
        ) from error


def _problems_of(reader: GGUFReader, size: int) -> Iterator[str]:
    for key, field in reader.fields.items():
        if key.endswith(".block_count") and not 1 <= int(field.contents()) <= MOST_LAYERS:
            yield f"claims {field.contents():,} layers, where models have 1 to {MOST_LAYERS:,}"
        if key.endswith((".embedding_length", ".attention.head_count")):
            # One number, or one for each layer.
            numbers = np.atleast_1d(field.contents())
            if numbers.dtype.kind not in "iu" or numbers.min() < 1 or numbers.max() > 1 << 20:
                yield f"says that {key} is {str(field.contents())[:80]}"
    end = int(reader.data_offset)
    for tensor in sorted(reader.tensors, key=lambda each: int(each.data_offset)):
        if int(tensor.n_elements) < 1:
            yield f"has a tensor without values, {tensor.name[:80]!a}"
        if int(tensor.data_offset) < end:
            yield f"has tensors that overlap, such as {tensor.name[:80]!a}"
        end = int(tensor.data_offset) + int(tensor.n_bytes)
        if end > size:
            yield f"ends before its tensor {tensor.name[:80]!a}"


def _without_code(
    loader: Any, folder: Path, stated: Mapping[str, Any], name: str, file: str
) -> Any:
    """What a loader of transformers makes of a folder without running code that lies in it."""
    try:
        return loader.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # anything may stand in the file
        if "trust_remote_code" in str(error):
            raise InputError(
                f"model {name}: {file} asks for code of its own (auto_map), which is never run; name a model "
                "that transformers knows itself"
            ) from error
        raise InputError(
            f"model {name}: its {file} cannot be read ({_told(error, stated)}); save the model again"
        ) from error


def _told(error: Exception, stated: Mapping[str, Any]) -> str:
    """What an error says, in one line; transformers' own checks of a config say it in the second."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2])[:200] if lines[0].endswith(":") else lines[0][:200]


def _check_sizes(config: PreTrainedConfig, name: str) -> None:
    """InputError for sizes that no model has, of which building it would take hours or divide by zero."""
    try:
        text = config.get_text_config().to_dict()
        shape = shape_from(text)
    except Exception as error:
        raise InputError(
            f"model {name}: the sizes in its config.json are no model's ({type(error).__name__}: "
            f"{first_line(error)}); save the model again"
        ) from error
    layers = text.get("num_hidden_layers")
    sizes = {} if shape is None else {k: getattr(shape, k) for k in _SIZES}
    for size, value in {"layers": layers, **sizes}.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise InputError(
                f"model {name}: config.json gives it {value!r:.80} {size}; save the model again"
            )
    if isinstance(layers, int) and layers > MOST_LAYERS:
        raise InputError(
            f"model {name}: config.json gives it {layers:,} layers, where models have at most "
            f"{MOST_LAYERS:,}; save the model again"
        )


_SIZES = ("layers", "heads", "kv_heads", "d_model", "d_head", "vocabulary")


def _all_entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of nested mappings."""
    for key, each in value.items() if isinstance(value, Mapping) else ():
        yield str(key), each
        yield from _all_entries(each)
