"""What claims must know of the models of a study besides their numbers. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..model.sizes import Shape


@dataclass(frozen=True)
class StudyModel:
    """A model by its title.

    control_of: the title of the model that it is a control of, such as the same one with other weights: it
    is judged like any other but not counted among the models. parameters: how many it has, None where the
    config states no `shape`.
    """

    title: str
    control_of: str | None = None
    parameters: int | None = None


def study_models(keys: Sequence[str], settings: Mapping[str, Any]) -> list[StudyModel]:
    """The models of a study in order; keys: their names in the config; settings: values of the dotted keys
    `models.<key>.title`, `.control_of` and `.shape`, None where the config has none."""
    titles = {key: settings[f"models.{key}.title"] or key for key in keys}
    return [
        StudyModel(
            titles[key],
            titles.get(settings[f"models.{key}.control_of"]),
            _parameters(settings[f"models.{key}.shape"]),
        )
        for key in keys
    ]


def controls_of(models: Sequence[StudyModel]) -> dict[str, str]:
    """The title of each control, and of the model that it is a control of."""
    return {model.title: model.control_of for model in models if model.control_of is not None}


def _parameters(shape: Mapping[str, Any] | None) -> int | None:
    if not shape:
        return None
    usual = {"kv_heads": shape["heads"], "d_head": shape["d_model"] // shape["heads"]}
    return Shape(**(usual | dict(shape))).parameters
