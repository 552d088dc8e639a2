"""Where the parts of a language model are: names of modules, found once and kept as JSON.

`finding` asks TransformerLens for them; whoever measures loads the plain Hugging Face model and looks
the names up. Imports no torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError


@dataclass(frozen=True)
class LayerParts:
    """Names, dotted from the model down, of the modules of one decoder layer.

    output_projection: the linear map from all heads' z to the residual stream; mlp_out: the MLP's last
    linear map, None where there is no such map (mixtures of experts).
    attention_post_norm, mlp_post_norm: what normalises a sublayer's output before it is added to the
    residual stream, None where nothing does.
    """

    block: str
    attention: str
    output_projection: str
    mlp: str
    mlp_out: str | None = None
    attention_post_norm: str | None = None
    mlp_post_norm: str | None = None


@dataclass(frozen=True)
class ModelParts:
    """Names of a model's modules, and the sizes that its modules do not tell.

    architecture: the model's class in transformers; context_length: positions; versions: of the
    packages that the names are from.
    """

    architecture: str
    layers: tuple[LayerParts, ...]
    final_norm: str
    unembedding: str
    n_heads: int
    n_key_value_heads: int
    context_length: int
    versions: dict[str, str]

    def to_json(self) -> str:
        """One line per name, the layers in order."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ModelParts:
        """What `to_json` wrote; InputError if it is anything else."""
        try:
            values: dict[str, Any] = json.loads(text)
            layers = tuple(LayerParts(**layer) for layer in values.pop("layers"))
            return cls(layers=layers, **values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"parts of a model: not as written ({error}); find them again"
            ) from error


def write_parts(parts: ModelParts, path: str | Path) -> None:
    """Keep the parts of a model in a JSON file."""
    Path(path).write_text(parts.to_json(), encoding="utf-8")


def read_parts(path: str | Path) -> ModelParts:
    """The parts that `write_parts` kept; InputError as `ModelParts.from_json`."""
    return ModelParts.from_json(Path(path).read_text(encoding="utf-8"))
