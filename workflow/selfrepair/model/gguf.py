"""GGUF files, the format of llama.cpp: de-quantised into a Hugging Face directory, a tensor at a time.

How llama.cpp names a model's tensors and lays them out is known to transformers, whose tables are used
here; transformers itself would hold the whole model in memory, in float32, before it could be saved.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import (
    GGML_QUANT_SIZES,
    GGMLQuantizationType,
    GGUFReader,
    ReaderTensor,
    dequantize,
    quantize,
)
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
)

from ..errors import InputError, first_line
from ..files.storage import write_json

# Weights are written in files of about this many bytes, so about as many are held in memory.
SHARD_BYTES = 1 << 30
EMBEDDING, UNEMBEDDING = "token_embd.weight", "output.weight"
# By how much each frequency of the rotary embedding is divided (Llama 3).
ROPE_DIVISORS = "rope_freqs.weight"
# An embedding and an unembedding that differ by less, relative to their norm, are one matrix quantised
# twice. Quantising changes a matrix by 0.5 % (8 bits) to 9 % (4 bits); two matrices differ by over 100 %.
SAME_MATRIX = 0.15
# Rows of the two that are compared.
_COMPARED_ROWS = 2048


def convert_gguf(
    gguf: Path, folder: Path, *, name: str, requantise: str | None = None
) -> dict[str, Any]:
    """De-quantise a GGUF file into a float32 Hugging Face directory with its tokenizer.

    An unembedding that is the embedding is saved once. Where a file holds that one matrix twice, quantised
    differently, the finer one serves as both.

    Args:
        folder: the directory to make.
        name: of the model, for progress and messages.
        requantise: a format of `block_formats` that every tensor which is quantised in the file is rounded
            to once more; the others stay as they are.
    Returns:
        What was in the file: architecture, tensors by quantisation, whether the embeddings are tied; and how
        many tensors were rounded once more.
    Raises:
        InputError: it is no GGUF file, or one of several; its architecture cannot be converted; it does not
            hold exactly what such a model consists of, or nothing that `requantise` could round; there is no
            room on the disk.
    """
    reader = _open(gguf, name)
    again = None if requantise is None else GGMLQuantizationType[requantise]
    tensors = _with_tied_embedding(reader.tensors)
    architecture = str(reader.fields["general.architecture"].contents())
    try:
        config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
        config.tie_word_embeddings = UNEMBEDDING not in {tensor.name for tensor in tensors}
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=config.to_dict())
        names = get_gguf_hf_weights_map(model, processor)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except Exception as error:
        raise InputError(
            f"models.{name}: GGUF files of architecture {architecture!r} cannot be converted "
            f"({first_line(error)}); name a Hugging Face directory or hub name of the model"
        ) from error
    tensors = _with_rope_in_config(tensors, config)
    _check_scaling(reader, config, architecture, name)
    _check_known(tensors, names, name)
    rounded = (
        {} if again is None else {"requantised": {again.name: _count_rounded(tensors, again, name)}}
    )
    folder.mkdir()
    _check_room(model, folder, name)
    in_order = tqdm(
        sorted(tensors, key=lambda tensor: _block(tensor.name)),
        desc=f"{name}: converting",
        unit="tensor",
        leave=False,
        disable=None,
    )
    _save(_as_in(model, _renamed(in_order, processor, names, again), name), folder)
    config.architectures, config.dtype = [type(model).__name__], torch.float32
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {
        "architecture": architecture,
        "quantisation": dict(Counter(tensor.tensor_type.name for tensor in reader.tensors)),
        "tied_embeddings": config.tie_word_embeddings,
        **rounded,
    }


def _open(gguf: Path, name: str) -> GGUFReader:
    try:
        reader = GGUFReader(gguf)
    except Exception as error:
        raise InputError(
            f"models.{name}: {gguf.name} cannot be read as a GGUF file ({first_line(error)}); fetch it "
            "again, or name another"
        ) from error
    count = reader.get_field("split.count")
    if count is not None and count.contents() > 1:
        raise InputError(
            f"models.{name}: {gguf.name} is one of {count.contents()} GGUF files that the model was split "
            "into; join them first (llama-gguf-split --merge)"
        )
    return reader


def _with_tied_embedding(tensors: Sequence[ReaderTensor]) -> list[ReaderTensor]:
    """The tensors, with one embedding matrix instead of two that are the same up to quantisation."""
    named = {tensor.name: tensor for tensor in tensors}
    if EMBEDDING not in named or UNEMBEDDING not in named:
        return list(tensors)
    pair = named[EMBEDDING], named[UNEMBEDDING]
    if list(pair[0].shape) != list(pair[1].shape):
        return list(tensors)
    every = max(1, len(pair[0].data) // _COMPARED_ROWS)
    one, other = (dequantize(tensor.data[::every], tensor.tensor_type) for tensor in pair)
    if np.linalg.norm(one - other) > SAME_MATRIX * np.linalg.norm(other):
        return list(tensors)
    finer = max(pair, key=lambda tensor: int(tensor.n_bytes))._replace(name=EMBEDDING)
    return [tensor for tensor in tensors if tensor not in pair] + [finer]


def _with_rope_in_config(
    tensors: Sequence[ReaderTensor], config: PreTrainedConfig
) -> list[ReaderTensor]:
    """The tensors but for the divisors of rotary frequencies, which transformers has in the config.

    A "longrope" with the same divisors for short and long texts is exactly that.
    """
    kept = []
    for tensor in tensors:
        if tensor.name != ROPE_DIVISORS or "rope_theta" not in config.rope_parameters:
            kept.append(tensor)
            continue
        divisors = dequantize(tensor.data, tensor.tensor_type).tolist()
        config.rope_parameters = config.rope_parameters | {
            "rope_type": "longrope",
            "short_factor": divisors,
            "long_factor": divisors,
            "attention_factor": 1.0,
            "original_max_position_embeddings": config.max_position_embeddings,
        }
    return kept


def _check_scaling(
    reader: GGUFReader, config: PreTrainedConfig, architecture: str, name: str
) -> None:
    """InputError if the file scales rotary positions in a way that the config does not have."""
    stated = reader.get_field(f"{architecture}.rope.scaling.type")
    kind = "none" if stated is None else str(stated.contents())
    if kind != "none" and not re.search(r"'rope_type': '(?!default)", str(config.rope_parameters)):
        raise InputError(
            f"models.{name}: the GGUF file scales rotary positions ({kind}), which is not converted; name "
            "a Hugging Face directory or hub name of the model"
        )


def _check_known(tensors: Iterable[ReaderTensor], names: Mapping[str, str], name: str) -> None:
    """InputError if the file has a tensor that a model of this architecture has no place for."""
    unknown = [
        tensor.name
        for tensor in tensors
        if not {tensor.name, tensor.name.removesuffix(".weight")} & set(names)
    ]
    if unknown:
        raise InputError(
            f"models.{name}: the GGUF file has {len(unknown)} tensors that are not converted ({unknown[0]}"
            f"{', ...' if len(unknown) > 1 else ''}); name a Hugging Face directory or hub name of the model"
        )


def _count_rounded(tensors: Iterable[ReaderTensor], again: GGMLQuantizationType, name: str) -> int:
    """How many tensors are rounded once more; InputError if none is, or if one does not fit the format.

    A tensor that stayed as it is would make the model one that is rounded once more in parts only.
    """
    quantised = [tensor for tensor in tensors if _is_quantised(tensor)]
    if not quantised:
        raise InputError(
            f"models.{name}.requantise: no tensor of the GGUF file is quantised, so none is rounded once "
            "more; leave it out"
        )
    block = GGML_QUANT_SIZES[again][0]
    for tensor in quantised:
        row = int(tensor.shape[0])
        if row % block:
            raise InputError(
                f"models.{name}.requantise: rows of {tensor.name} have {row} values, no multiple of the "
                f"{block} of a block of {again.name}; name a format of smaller blocks"
            )
    return len(quantised)


def _is_quantised(tensor: ReaderTensor) -> bool:
    return GGML_QUANT_SIZES[tensor.tensor_type][0] > 1


def _values(tensor: ReaderTensor, again: GGMLQuantizationType | None) -> np.ndarray:
    """A tensor in float32, laid out as in the file, where quantised blocks lie along its rows.

    again: the format that it is rounded to once more, if it is quantised in the file.
    """
    if again is None or not _is_quantised(tensor):
        return dequantize(tensor.data, tensor.tensor_type)
    # Nothing else holds the values of before, so that they are not there twice while these are made.
    return dequantize(quantize(dequantize(tensor.data, tensor.tensor_type), again), again)


def _check_room(model: PreTrainedModel, folder: Path, name: str) -> None:
    needed = 4 * sum(parameter.numel() for parameter in model.parameters())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"models.{name}: its weights take {needed / 1e9:.1f} GB in float32, {folder.parent} has "
            f"{free / 1e9:.1f} GB free; free some, or set `cache` to another disk"
        )


def _block(name: str) -> int:
    """The layer that a tensor belongs to, -1 if to none."""
    found = re.match(r"blk\.(\d+)\.", name)
    return int(found[1]) if found else -1


def _renamed(
    tensors: Iterable[ReaderTensor],
    processor: TensorProcessor,
    names: Mapping[str, str],
    again: GGMLQuantizationType | None,
) -> Iterator[tuple[str, torch.Tensor]]:
    """The model's tensors as transformers names and lays them out, in float32; again: as of `_values`.

    tensors: of one layer after another. What a processor puts together of several of them (experts)
    it keeps in a mapping, which is passed on at the end of a layer.
    """
    together: dict[str, torch.Tensor] = {}
    layer = -1
    for tensor in tensors:
        if _block(tensor.name) != layer:
            yield from together.items()
            together.clear()
            layer = _block(tensor.name)
        made = processor.process(
            weights=_values(tensor, again),
            name=tensor.name,
            tensor_key_mapping=names,
            parsed_parameters={"tensors": together},
        )
        if made.name is not None:
            values = np.require(made.weights, np.float32, ["C_CONTIGUOUS", "WRITEABLE"])
            yield names[made.name], torch.from_numpy(values)
    yield from together.items()


def _as_in(
    model: PreTrainedModel, tensors: Iterable[tuple[str, torch.Tensor]], name: str
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors, each checked to be a parameter of the model; InputError at the end if one is missing.

    model: on the meta device. A parameter that is used twice counts once.
    """
    missing = {key: parameter.shape for key, parameter in model.named_parameters()}
    for key, tensor in tensors:
        shape = missing.pop(key, None)
        if shape != tensor.shape:
            raise InputError(
                f"models.{name}: {key} has shape {list(tensor.shape)} in the GGUF file, "
                f"{list(shape or [])} in a {type(model).__name__}; name another file"
            )
        yield key, tensor
    if missing:
        raise InputError(
            f"models.{name}: the GGUF file lacks {len(missing)} tensors of a {type(model).__name__} "
            f"({next(iter(missing))}{', ...' if len(missing) > 1 else ''}); name another file"
        )


def _save(tensors: Iterable[tuple[str, torch.Tensor]], folder: Path) -> None:
    """Write tensors as safetensors: one file, or shards and their index, named as transformers does."""
    shards: list[dict[str, int]] = []
    for shard in _shards(tensors):
        path = folder / str(len(shards))
        save_file(shard, path, metadata={"format": "pt"})
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        shards.append({name: tensor.nbytes for name, tensor in shard.items()})
        shard.clear()  # so that it is not held while the next one is made
    files = [f"model-{n + 1:05d}-of-{len(shards):05d}.safetensors" for n in range(len(shards))]
    if len(shards) == 1:
        files = ["model.safetensors"]
    else:
        total = sum(sum(shard.values()) for shard in shards)
        places = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
        index = {"metadata": {"total_size": total}, "weight_map": places}
        write_json(folder / "model.safetensors.index.json", index)
    for number, file in enumerate(files):
        (folder / str(number)).rename(folder / file)


def _shards(
    tensors: Iterable[tuple[str, torch.Tensor]],
) -> Iterator[dict[str, torch.Tensor]]:
    """The tensors in groups of at most SHARD_BYTES; a larger one is a group of its own."""
    held: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in tensors:
        if held and size + tensor.nbytes > SHARD_BYTES:
            yield held
            held, size = {}, 0
        held[name] = tensor
        size += tensor.nbytes
    yield held
