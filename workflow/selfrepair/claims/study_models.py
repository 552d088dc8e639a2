"""What claims must know of the models of a study besides their numbers. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..study.shapes import stated_shape


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


def titles_of_controls(keys: Sequence[str], settings: Mapping[str, Any]) -> dict[str, str]:
    """The title of each control, and of the model that it is a control of.

    keys: names of the models in the config; settings: values of the dotted keys `models.<key>.title` and
    `.control_of`, None where the config has none.
    """
    titles = {key: settings[f"models.{key}.title"] or key for key in keys}
    found = {key: settings[f"models.{key}.control_of"] for key in keys}
    return {titles[key]: titles[of] for key, of in found.items() if of is not None}


def study_models(keys: Sequence[str], settings: Mapping[str, Any]) -> list[StudyModel]:
    """The models of a study in order; settings: as of `titles_of_controls`, and `models.<key>.shape`."""
    controls = titles_of_controls(keys, settings)
    models = []
    for key in keys:
        title = settings[f"models.{key}.title"] or key
        shape = settings[f"models.{key}.shape"]
        parameters = stated_shape(shape).parameters if shape else None
        models.append(StudyModel(title, controls.get(title), parameters))
    return models
