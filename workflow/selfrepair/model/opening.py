"""Load a model of which nobody has looked at the files yet: vetted first (`vetting`), then loaded (`loading`).

Jobs of a study load what `make fetch` has vetted.
"""

from __future__ import annotations

from pathlib import Path

from ..files.hub import locate_model
from . import loading
from .decoder import DTYPES, Decoder
from .memory import refuse_weights
from .parts import ModelParts
from .sizes import shape_from
from .vetting import vet_settings, vet_weights


def load_model(
    name: str | Path,
    *,
    device: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
    parts: ModelParts | None = None,
    pickle: bool = False,
) -> Decoder:
    """Load a hub name or a local Hugging Face directory and check that its heads can be measured.

    Args:
        name: a hub name, or a directory with config.json, weights and a tokenizer.
        device: "auto" (CUDA if there is one, else CPU) or a torch device.
        dtype: one of float64, float32, bfloat16, float16.
        revision: a hub branch, tag or commit.
        parts: what `find_parts` found for it; by default it is asked, which takes about ten seconds.
        pickle: whether weights may be in PyTorch's own format, which is read without running what it holds.
    Raises:
        InputError: missing directory, weights or tokenizer; a model that the hub and its cache do not
            give, or that asks for code of its own; damaged files; weights that lack a tensor, or with NaN or
            infinity; unknown dtype or device; weights that do not fit into the device's memory; parts of
            another model; an architecture that the method does not cover, or that torch cannot run in
            this dtype.
    """
    folder, commit = locate_model(str(name), revision=revision, weights=False)
    # Before the weights are fetched and looked through: do they fit?
    shape = shape_from(vet_settings(folder, name=str(name)).to_dict())
    if shape is not None and dtype in DTYPES:
        refuse_weights(shape, str(name), dtype=dtype, device=loading._device(device))
    folder, commit = locate_model(str(name), revision=commit)
    vet_weights(folder, name=str(name), pickle=pickle)
    return loading.load_model(name, device=device, dtype=dtype, revision=revision, parts=parts)
