"""A study's config: checked against its schema, completed with defaults, one line per mistake."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from ..errors import InputError
from ..files.wheels import Wheel

Config = dict[str, Any]


def read_study(path: Path, *, schema: Path) -> Config:
    """The config in a file, checked against the schema in another and completed.

    Raises:
        InputError: the file is no YAML, or its content is wrong; in one line.
        OSError: it cannot be read.
    """
    allowed = yaml.safe_load(schema.read_text(encoding="utf-8"))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"this is no YAML: {' '.join(str(error).split())}") from error
    return complete_config(content, allowed)


def complete_config(config: Mapping[str, Any], schema: Mapping[str, Any]) -> Config:
    """The config with every default filled in.

    Raises:
        InputError: one line that names the first wrong key, its value and what is allowed.
    """
    errors = sorted(Draft202012Validator(schema).iter_errors(config), key=lambda e: str(e.path))
    if errors:
        raise InputError(_explain(errors[0]))
    complete = copy.deepcopy(dict(config))
    _fill_defaults(complete, schema, schema)
    experiments = complete["experiments"]
    if experiments["prompts"] is None:
        experiments["prompts"] = complete["text"]["prompts"]
    if experiments["iterative_prompts"] is None:
        experiments["iterative_prompts"] = experiments["prompts"]
    _check_references(complete)
    return complete


def wheels_of(config: Mapping[str, Any]) -> dict[str, Wheel]:
    return {name: Wheel(name=name, **entry) for name, entry in config["wheels"].items()}


def n_shards(config: Mapping[str, Any], measurement: str) -> int:
    """Jobs that a measurement of one model is scattered over."""
    total, size = _sizes(config, measurement)
    return -(-total // size)


def shard_prompts(config: Mapping[str, Any], measurement: str, shard: int) -> range:
    """The prompts of one shard; the last may have fewer."""
    total, size = _sizes(config, measurement)
    return range(shard * size, min((shard + 1) * size, total))


def _sizes(config: Mapping[str, Any], measurement: str) -> tuple[int, int]:
    """Prompts of a sweep (named by its ablation) or of an experiment, and prompts of its shards."""
    if measurement in config["ablations"]:
        prompts = config["ablations"][measurement]["prompts"]
        return prompts, config["sweep"]["prompts_per_shard"]
    experiments = config["experiments"]
    prompts = experiments["iterative_prompts" if measurement == "iterative" else "prompts"]
    return prompts, experiments["prompts_per_shard"]


def _explain(error: Any) -> str:
    key = ".".join(str(part) for part in error.absolute_path) or "config"
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = sorted(set(error.instance) - set(known))
        return f"{key}: unknown key {', '.join(unknown)}; known keys are {', '.join(sorted(known))}"
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return f"{key}: needs the key {', '.join(missing)}"
    if error.validator == "oneOf":
        choices = " or ".join("+".join(c["required"]) for c in error.validator_value)
        return f"{key}: give either {choices}, not both or neither"
    meaning = error.schema.get("description") if isinstance(error.schema, dict) else None
    message = error.message.splitlines()[0]
    return f"{key}: {message}" + (f" ({meaning})" if meaning else "")


def _fill_defaults(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> None:
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if not isinstance(value, dict):
        return
    for key, part in schema.get("properties", {}).items():
        if "default" in part:
            value.setdefault(key, copy.deepcopy(part["default"]))
        if key in value:
            _fill_defaults(value[key], part, root)
    rest = schema.get("additionalProperties")
    if isinstance(rest, dict):
        for key in set(value) - set(schema.get("properties", {})):
            _fill_defaults(value[key], rest, root)


def _check_references(config: Config) -> None:
    """What no schema can say: keys that name other keys, and sizes that depend on each other."""
    users = [("models", config["models"]), ("text.sources", config["text"]["sources"])]
    for where, entries in users:
        for name, entry in entries.items():
            if "wheel" in entry and entry["wheel"] not in config["wheels"]:
                raise InputError(f"{where}.{name}.wheel: {entry['wheel']!r} is not a key of wheels")
    titles = [model.get("title", name) for name, model in config["models"].items()]
    for title in titles:
        if titles.count(title) > 1:
            raise InputError(f"models: two have the title {title!r}; give each its own")
    for name, model in config["models"].items():
        where = str(model.get("name", ""))
        if where.startswith((".", "/", "~")) and not Path(where, "config.json").is_file():
            raise InputError(
                f"models.{name}.name: {where} is no Hugging Face directory (it has no config.json)"
            )
    for name in config.get("published", {}).get("tables", {}):
        if name not in config["models"]:
            raise InputError(f"published.tables: {name!r} is not a key of models")
        if "resample" not in config["ablations"]:
            raise InputError("published: needs ablations.resample, the authors' ablation")
    if config["tf32"] and config["dtype"] != "float32":
        raise InputError(f"tf32: true needs dtype float32, not {config['dtype']}; leave it out")
    total, length = config["text"]["prompts"], config["text"]["tokens_per_prompt"]
    sizes = {f"ablations.{name}.prompts": a["prompts"] for name, a in config["ablations"].items()}
    for name in ("prompts", "iterative_prompts"):
        sizes[f"experiments.{name}"] = config["experiments"][name]
    for name, prompts in sizes.items():
        if prompts > total:
            raise InputError(f"{name}: {prompts} is more than text.prompts, {total}")
        if prompts * (length - 1) < 50:
            raise InputError(
                f"{name}: {prompts} prompts of {length} tokens have "
                f"{prompts * (length - 1)} positions with a target; top tokens need at least 50"
            )
