"""Find the parts of a language model by asking TransformerLens.

Its adapters say, for every architecture that it supports, which submodule is the attention of a layer,
its output projection, its MLP, the final norm and the unembedding. The names are looked up on the model
as Hugging Face builds it, on the meta device, which holds no weights. Importing TransformerLens takes
longer than that (7 to 10 s on two Zen 3 cores), so this is done once per model.
"""

from __future__ import annotations

import logging
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.pytorch_utils import Conv1D

from ..errors import InputError, first_line
from ..files.hub import locate_model
from .parts import LayerParts, ModelParts

# Both say at import what a study cannot change: which optional back ends are missing.
warnings.filterwarnings("ignore", module="transformer_lens")
logging.getLogger("transformers").setLevel(logging.ERROR)

from transformer_lens.factories.architecture_adapter_factory import (  # noqa: E402
    SUPPORTED_ARCHITECTURES,
    ArchitectureAdapterFactory,
)
from transformer_lens.model_bridge.sources import build_bridge_config_from_hf  # noqa: E402


def find_parts(name: str | Path, *, revision: str | None = None) -> ModelParts:
    """The parts of a hub name or a local Hugging Face directory, of which only the config is read.

    Raises:
        InputError: no such model, or one that the method does not cover.
    """
    folder, _ = locate_model(str(name), revision=revision, weights=False)
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise InputError(
            f"model {name}: its config cannot be read ({first_line(error)})"
        ) from error
    return parts_of(empty_network(config, name=str(name)), name=str(name))


def empty_network(config: PretrainedConfig, *, name: str, dtype: torch.dtype | None = None) -> Any:
    """A language model on the meta device (raises InputError for a config that is of none)."""
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, dtype=dtype)
    except Exception as error:
        raise InputError(
            f"model {name} ({config.model_type}): transformers builds no language model that predicts "
            f"the next token from it ({first_line(error)}); use a decoder LM"
        ) from error


def parts_of(network: Any, *, name: str) -> ModelParts:
    """The parts of a model as transformers builds it.

    Raises:
        InputError: TransformerLens does not know the architecture, or it has no heads and MLPs as the
            method defines them (docs/method.md section 1).
    """
    kind = type(network).__name__
    if kind not in SUPPORTED_ARCHITECTURES:
        raise InputError(
            f"model {name} ({kind}): transformer_lens {version('transformer_lens')} does not name the "
            "parts of this architecture; use a supported one (docs/models.md)"
        )
    settings = build_bridge_config_from_hf(network.config, kind, name, torch.float32)
    try:
        adapter = ArchitectureAdapterFactory.select_architecture_adapter(settings)
        mapping: Any = adapter.get_component_mapping()
    except Exception as error:
        raise InputError(
            f"model {name} ({kind}): transformer_lens cannot name its parts ({first_line(error)}); "
            "use a supported architecture (docs/models.md)"
        ) from error
    where = f"model {name} ({kind})"
    for key in ("blocks", "ln_final", "unembed"):
        if key not in mapping or _module(network, mapping[key].name) is None:
            raise InputError(
                f"{where}: no stack of layers, final norm and unembedding; use a decoder LM"
            )
    blocks = mapping["blocks"]
    stack: Any = _module(network, blocks.name)
    return ModelParts(
        architecture=kind,
        layers=tuple(
            _layer_parts(blocks.submodules, block, f"{blocks.name}.{index}", where=where)
            for index, block in enumerate(stack)
        ),
        final_norm=mapping["ln_final"].name,
        unembedding=mapping["unembed"].name,
        n_heads=int(settings.n_heads),
        n_key_value_heads=int(settings.n_key_value_heads or settings.n_heads),
        context_length=int(settings.n_ctx),
        versions={p: version(p) for p in ("transformers", "transformer_lens")},
    )


def _layer_parts(named: dict[str, Any], block: nn.Module, prefix: str, *, where: str) -> LayerParts:
    """named: the adapter's parts of a block, by what they are."""

    def found(*path: str) -> str | None:
        """The name of a part of the block, if this layer has it."""
        parts, names = named, []
        for key in path:
            if key not in parts:
                return None
            names += [parts[key].name] if parts[key].name else []
            parts = parts[key].submodules
        return ".".join(names) if names and _module(block, ".".join(names)) is not None else None

    # Granite's hybrids name an MLP that is shared by all experts; alone, it is the layer's MLP.
    key = "shared_mlp" if "shared_mlp" in named and "moe" not in named else "mlp"
    attention, projection = found("attn"), found("attn", "o")
    mlp, mlp_out = found(key), found(key, "out")
    mlp = mlp or mlp_out  # two linear maps of the block itself, without a module around them
    if not attention or not projection or not mlp:
        raise InputError(
            f"{where}: {prefix} has no separable attention heads and MLP; use a transformer whose "
            "attention heads write through an output projection, in every layer"
        )
    if mlp_out and not isinstance(_module(block, mlp_out), (nn.Linear, Conv1D)):
        mlp_out = None
    wanted = {
        "attention": attention,
        "output_projection": projection,
        "mlp": mlp,
        "mlp_out": mlp_out,
        "attention_post_norm": found("ln1_post"),
        "mlp_post_norm": found("ln2_post"),
    }
    return LayerParts(prefix, **{k: f"{prefix}.{v}" if v else None for k, v in wanted.items()})  # type: ignore[arg-type]


def _module(root: nn.Module, name: str | None) -> nn.Module | None:
    """The submodule of a dotted name, None if there is none."""
    try:
        return root.get_submodule(name) if name else None
    except AttributeError:
        return None
