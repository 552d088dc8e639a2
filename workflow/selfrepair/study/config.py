"""A study's config: checked against its schema, completed with defaults and materials, sharded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..catalogue import EXPERIMENTS
from ..errors import InputError
from ..model.weights import block_formats, is_converted
from ..other_ablations import ALL_HEADS, check_training_prompts
from ..vocabulary import SAMPLED, TOP_SHARE
from .materials import FILE, Materials, read_materials, used_wheels, with_materials
from .schema import (
    Schema,
    check,
    check_names,
    check_plain,
    did_you_mean,
    fill_defaults,
    read_schema,
    read_yaml,
)
from .sizes import PROMPTS, complete_sizes, config_of_model, stated_key

Config = dict[str, Any]

# What the clean pass is called among measurements that are scattered over shards.
CLEAN = "clean"


def read_study(path: Path, *, schema: Path, materials: Path | None = None) -> Config:
    """The config in a file, checked against the schema in another and completed.

    materials: the file of shared texts and wheels, by default materials.yaml beside the schema.

    Raises:
        InputError: the file is no YAML, or its content is wrong; in one line.
        OSError: it cannot be read.
    """
    allowed = read_schema(schema)
    shared = read_materials(materials or schema.with_name(FILE), allowed)
    return complete_config(read_yaml(path), allowed, materials=shared)


def complete_config(config: Any, schema: Schema, *, materials: Materials) -> Config:
    """The config with every default, and the texts and wheels that it takes from the materials.

    Completing a completed config changes nothing.

    Args:
        config: as it was written.
        schema: as `read_schema` gives it.
        materials: as `read_materials` gives them.
    Raises:
        InputError: one line that names the first wrong key, its value and what is allowed.
    """
    check_plain(config)
    check_names(config)
    complete = with_materials(config, materials)
    check(complete, schema)
    fill_defaults(complete, schema)
    complete["wheels"] = used_wheels(complete)
    complete_sizes(complete)
    experiments = complete["experiments"]
    if experiments["prompts"] is None:
        experiments["prompts"] = complete["text"]["prompts"]
    for name in PROMPTS:
        if experiments[name] is None:
            experiments[name] = experiments["prompts"]
    _check_models(complete)
    _check_published(complete)
    _check_sizes(complete)
    for model in complete["models"]:
        _check_sizes_of(model, complete)
    _check_swept(complete)
    _check_maps(complete)
    formats = complete["figures"]["formats"]
    if not {"html", "png"} <= set(formats):
        raise InputError(
            f"figures.formats: {formats} lacks html or png, which the page of claims shows"
        )
    if complete["tf32"] and complete["dtype"] != "float32":
        raise InputError(f"tf32: true needs dtype float32, not {complete['dtype']}; leave it out")
    return complete


def config_value(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key; None if the config does not have it.

    The names of models, wheels and sources may have dots themselves.
    """
    value: Any = config
    while key:
        known = value if isinstance(value, Mapping) else ()
        name = max((n for n in known if key == n or key.startswith(f"{n}.")), key=len, default=None)
        if name is None:
            return None
        value, key = value[name], key[len(name) + 1 :]
    return value


def mapped_ablations(config: Mapping[str, Any]) -> list[str]:
    """The ablations of which it is measured who repairs."""
    return [name for name, ablation in config["ablations"].items() if ablation["map"]]


def n_shards(config: Mapping[str, Any], measurement: str) -> int:
    """Jobs that a measurement is scattered over (`CLEAN`, an ablation, an experiment), of the model that
    the config holds for (`config_of_model`)."""
    total, size = _sizes(config, measurement)
    return -(-total // size)


def shard_prompts(config: Mapping[str, Any], measurement: str, shard: int) -> range:
    """The prompts of one shard, of the same; the last may have fewer."""
    total, size = _sizes(config, measurement)
    return range(shard * size, min((shard + 1) * size, total))


def _sizes(config: Mapping[str, Any], measurement: str) -> tuple[int, int]:
    """Prompts of the clean pass ("clean"), of a sweep (named by its ablation) or of an experiment, and
    prompts of its shards."""
    if measurement == CLEAN:
        return config["text"]["prompts"], config["clean"]["prompts_per_shard"]
    if measurement in config["ablations"]:
        prompts = config["ablations"][measurement]["prompts"]
        return prompts, config["sweep"]["prompts_per_shard"]
    (experiment,) = (each for each in EXPERIMENTS if each.name == measurement)
    sizes = config["experiments"]
    return sizes[experiment.prompts], sizes["prompts_per_shard"]


def _check_models(config: Config) -> None:
    """What no schema can say of models: titles that differ, files that are there, parts that differ."""
    titles = [model.get("title", name) for name, model in config["models"].items()]
    for title in titles:
        if titles.count(title) > 1:
            raise InputError(f"models: two have the title {title!r}; give each its own")
    for name, model in config["models"].items():
        _check_files(name, model)
        _check_control(name, config["models"])
        parts = model.get("parts", [])
        for number, part in enumerate(parts):
            if part in parts[:number]:
                raise InputError(
                    f"models.{name}.parts: part {number + 1} ({part['wheel']}) is part "
                    f"{parts.index(part) + 1} again; leave it out"
                )
        if "sha256" in model and not {"gguf", "wheel", "parts"} & set(model):
            raise InputError(
                f"models.{name}.sha256: is of a GGUF file, and none is named; pin a model of the hub "
                "with `revision`"
            )
        _check_requantise(name, model)


def _check_requantise(name: str, model: Mapping[str, Any]) -> None:
    """InputError if a model's weights cannot be rounded once more, or not to the format that is named."""
    if "requantise" not in model:
        return
    place, asked = f"models.{name}.requantise", model["requantise"]
    if not is_converted(model):
        raise InputError(
            f"{place}: {asked} rounds weights of a GGUF file once more, and none is named; leave it out"
        )
    known = block_formats()
    if asked not in known:
        raise InputError(
            f"{place}: {asked!r} is not one of {', '.join(known)}{did_you_mean(asked, known)}"
        )


def _check_control(name: str, models: Mapping[str, Any]) -> None:
    """InputError if a model is a control of none of the study's other models, or of another control."""
    original = models[name].get("control_of")
    if original is None:
        return
    if original == name or original not in models:
        nearest = did_you_mean(original, [key for key in models if key != name])
        raise InputError(
            f"models.{name}.control_of: {original!r} is not another key of models{nearest}; add that model, "
            "or state control_of: null"
        )
    if models[original].get("control_of") is not None:
        raise InputError(
            f"models.{name}.control_of: {original} is a control itself, of "
            f"{models[original]['control_of']}; name that"
        )


def _check_files(name: str, model: Mapping[str, Any]) -> None:
    """InputError if a model is said to lie on this machine and does not."""
    where, gguf = model.get("name"), model.get("gguf")
    if where is not None and not where.startswith((".", "/", "~")):
        return
    if gguf is not None:
        path = Path(where or "", gguf).expanduser()
        if not path.is_file():
            raise InputError(f"models.{name}.gguf: there is no file {path}")
    elif where is not None and not Path(where, "config.json").is_file():
        raise InputError(
            f"models.{name}.name: {where} is no Hugging Face directory (it has no config.json)"
        )


def _check_published(config: Config) -> None:
    """Released tables belong to a model of the study, and to the authors' ablation."""
    for name in config.get("published", {}).get("tables", {}):
        if name not in config["models"]:
            nearest = did_you_mean(name, config["models"])
            raise InputError(f"published.tables: {name!r} is not a key of models{nearest}")
        if "resample" not in config["ablations"]:
            raise InputError("published: needs ablations.resample, the authors' ablation")


def _check_sizes_of(model: str, config: Config) -> None:
    """The same of a model's own sizes; and its prompts are among those of the study's text."""
    sizes = config["models"][model].get("sizes", {})
    total = config["text"]["prompts"]
    if sizes.get("prompts", 0) > total:
        raise InputError(
            f"models.{model}.sizes.prompts: {sizes['prompts']} is more than text.prompts, {total}"
        )
    if sizes:
        own = config_of_model(config, model)
        _check_sizes(own, lambda key: stated_key(config, model, key))


def _check_sizes(config: Mapping[str, Any], named: Callable[[str], str] = str) -> None:
    """No measurement takes more prompts than there are, nor is the sample too small for a top token.

    named: the key that states the value of a key.
    """
    total, length = config["text"]["prompts"], config["text"]["tokens_per_prompt"]
    # Neither the last token, which has no target, nor a beginning-of-sequence token is ever selected.
    positions = length - (2 if config["text"]["bos"] == "always" else 1)
    sample = named("text.prompts")
    if total * positions * TOP_SHARE < 1:
        raise InputError(
            f"{sample}: {total} prompts of {length} tokens have {total * positions} positions "
            f"that may be selected; top tokens need at least {math.ceil(1 / TOP_SHARE)}"
        )
    sizes = {f"ablations.{name}.prompts": a["prompts"] for name, a in config["ablations"].items()}
    for name in PROMPTS:
        sizes[f"experiments.{name}"] = config["experiments"][name]
    for name, prompts in sizes.items():
        if prompts > total:
            raise InputError(f"{named(name)}: {prompts} is more than {sample}, {total}")
    kept_free = sizes.pop("experiments.pair_prompts")
    check_training_prompts(
        config["experiments"]["optimal_prompts"],
        total=total,
        ablated=max(sizes.values()),
        kept_free=kept_free,
        name=named("experiments.optimal_prompts"),
    )


def _check_maps(config: Config) -> None:
    """The map of who repairs is made of drawn top tokens."""
    for name, ablation in config["ablations"].items():
        if ablation["map"] and config["sweep"]["tokens"] != SAMPLED:
            raise InputError(
                f"ablations.{name}.map: true needs sweep.tokens {SAMPLED}, not {config['sweep']['tokens']}"
            )


def _check_swept(config: Config) -> None:
    """Some heads alone are a matter of which tokens are drawn."""
    sweep = config["sweep"]
    if sweep["heads"] != ALL_HEADS and sweep["tokens"] != SAMPLED:
        raise InputError(
            f"sweep.heads: {sweep['heads']} needs sweep.tokens {SAMPLED}, not {sweep['tokens']}, which takes"
            " every head"
        )
