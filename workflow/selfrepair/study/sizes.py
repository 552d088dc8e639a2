"""Sizes that a model has of its own: a study's config as it holds for one of its models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..catalogue import EXPERIMENTS
from ..errors import InputError

# Keys under `experiments` that say how many prompts of the sample an experiment runs on, or how many of its own.
PROMPTS = tuple(dict.fromkeys(each.prompts for each in EXPERIMENTS if not each.own_prompts))
OWN_PROMPTS = tuple(each.prompts for each in EXPERIMENTS if each.own_prompts)
# What `sizes` may state of each section of a study (of each ablation), as the schema says too; its `prompts`
# is the study's `text.prompts`.
SIZES = {
    "clean": ("prompts_per_shard",),
    "ablations": ("prompts", "prompts_per_head", "tokens_per_head", "random_tokens_per_head"),
    "sweep": ("prompts_per_shard",),
    "experiments": (
        *(*PROMPTS, *OWN_PROMPTS, "prompts_per_shard", "heads_per_model"),
        *("chosen_tokens_per_head", "chosen_random_tokens_per_head", "iterative_tokens_per_head"),
        *("pairs", "optimal_prompts", "optimal_steps"),
    ),
}


def config_of_model(config: Mapping[str, Any], model: str) -> Mapping[str, Any]:
    """A completed config with what the model's `sizes` states in place of the study's values."""
    sizes = config["models"][model].get("sizes", {})
    if not sizes:
        return config
    own = dict(config)
    if "prompts" in sizes:
        own["text"] = config["text"] | {"prompts": sizes["prompts"]}
    for section in SIZES:
        if section in sizes:
            own[section] = _replaced(config[section], sizes[section])
    return own


def size_key(key: str) -> str | None:
    """Where `sizes` of a model would state its own value of a key of the config; None: nowhere."""
    if key == "text.prompts":
        return "prompts"
    if "." not in key:
        return None
    section, *_, name = key.split(".")
    return key if name in SIZES.get(section, ()) else None


def stated_key(config: Mapping[str, Any], model: str, key: str) -> str:
    """The key that states what holds for a model: of its `sizes`, or else of the study."""
    found: Any = config["models"][model].get("sizes", {})
    for part in (size_key(key) or "").split("."):
        if not isinstance(found, Mapping) or part not in found:
            return key
        found = found[part]
    return f"models.{model}.sizes.{size_key(key)}"


def complete_sizes(config: Mapping[str, Any]) -> None:
    """Put into `sizes` of each model what the study leaves open (null) and the model's own prompts decide.

    Raises:
        InputError: sizes of an ablation that the study has not.
    """
    open_in_study = {name for name, value in config["experiments"].items() if value is None}
    for key, model in config["models"].items():
        sizes = model.get("sizes", {})
        for name in sizes.get("ablations", {}):
            if name not in config["ablations"]:
                known = ", ".join(f"ablations.{each}" for each in config["ablations"])
                raise InputError(
                    f"models.{key}.sizes.ablations.{name}: the study has no ablations.{name}; it has {known}"
                )
        prompts = sizes.get("experiments", {}).get("prompts")
        if "prompts" in open_in_study:
            prompts = prompts or sizes.get("prompts")
        for name in PROMPTS:
            if prompts and name in open_in_study:
                sizes.setdefault("experiments", {}).setdefault(name, prompts)


def _replaced(values: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A section of the config with the values that a model's sizes state."""
    return {
        key: _replaced(value, own[key])
        if key in own and isinstance(value, Mapping)
        else own.get(key, value)
        for key, value in values.items()
    }
