"""Models, texts and wheels that several studies use: stated once, in materials.yaml, and named by studies.

A study's config is completed with what it uses of them and nothing else, so that the config in a
result's provenance is whole, and a new entry changes no study.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from .schema import Schema, check, check_plain, definition, did_you_mean, read_yaml

FILE = "materials.yaml"

# `models`, `sources` and `wheels` by name.
Materials = Mapping[str, Mapping[str, Any]]

# Where a study lists what it may take by name.
_TAKEN = {"models": ("models",), "sources": ("text", "sources")}
# An entry with one of these keys is the study's own: it says itself where its content is.
_STATES = {"models": ("name", "gguf", "wheel", "parts"), "sources": ("kind",)}


def read_materials(path: Path, schema: Schema) -> Materials:
    """The materials in a file, checked against the schema's definition of them.

    Raises:
        InputError: the file is no YAML, or its content is wrong; in one line.
        OSError: it cannot be read.
    """
    try:
        materials: Materials = read_yaml(path)
        check_plain(materials)
        check(materials, definition(schema, "materials"))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return materials


def with_materials(config: Any, materials: Materials) -> Any:
    """A study's config, as it was written, with the models, sources and wheels that it takes by name.

    A model that does not say where its weights are, or a source without `kind`, is the one of that name in
    `materials`; what the study states of it replaces what stands there. A wheel is the study's own of that
    name, else that of `materials`.

    Raises:
        InputError: neither the study nor `materials` has a model, source or wheel of this name.
    """
    if not isinstance(config, Mapping):
        return config
    complete = copy.deepcopy(dict(config))
    for kind, keys in _TAKEN.items():
        entries = _section(complete, *keys)
        for name in _taken(entries, kind):
            if name not in materials[kind]:
                raise InputError(
                    f"{'.'.join(keys)}.{name}: states no {' or '.join(_STATES[kind])}, and {FILE} has "
                    f"nothing of this name{did_you_mean(name, materials[kind])}; its {kind} are "
                    f"{', '.join(sorted(materials[kind]))}"
                )
            entries[name] = copy.deepcopy(materials[kind][name]) | (entries[name] or {})
    wheels = complete.setdefault("wheels", {})
    if not isinstance(wheels, dict):  # left to the schema to refuse
        return complete
    for place, wheel in _all_named_wheels(complete):
        if wheel not in wheels and wheel not in materials["wheels"]:
            known = sorted({*wheels, *materials["wheels"]})
            raise InputError(
                f"{place}: {wheel!r} is not a key of wheels, here or in {FILE}"
                f"{did_you_mean(wheel, known)}; there are {', '.join(known)}"
            )
        wheels.setdefault(wheel, copy.deepcopy(materials["wheels"].get(wheel)))
    return complete


def used_wheels(config: Mapping[str, Any]) -> dict[str, Any]:
    """The wheels of a completed config that a model or source of it names."""
    used = {wheel for _, wheel in _all_named_wheels(config)}
    return {name: entry for name, entry in config["wheels"].items() if name in used}


def keys_taken(config: Mapping[str, Any], materials: Materials) -> list[str]:
    """The keys of the materials file that a study, as it was written, takes: `sources.news` and so on.

    DVC reads files as they are written: these are the parameters that its stages watch.
    """
    taken = [
        f"{kind}.{name}"
        for kind, keys in _TAKEN.items()
        for name in _taken(_section(config, *keys), kind)
    ]
    own = _section(config, "wheels")
    wheels = {wheel for _, wheel in _all_named_wheels(with_materials(config, materials))} - set(own)
    return taken + [f"wheels.{name}" for name in sorted(wheels)]


def named_wheels(entry: Any) -> list[str]:
    """The wheels that a model or source names, in order."""
    return [wheel for _, wheel in _named_wheels(entry, "")]


def _taken(entries: Mapping[str, Any], kind: str) -> Iterator[str]:
    """Names of the models or sources that a study takes from the materials."""
    for name, entry in list(entries.items()):
        if entry is None or (isinstance(entry, Mapping) and not set(entry) & set(_STATES[kind])):
            yield name


def _all_named_wheels(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The place and name of each wheel that a model or source of a config names."""
    for keys in _TAKEN.values():
        for name, entry in _section(config, *keys).items():
            yield from _named_wheels(entry, ".".join([*keys, name]))


def _named_wheels(entry: Any, place: str) -> Iterator[tuple[str, str]]:
    """The place and name of each wheel in an entry, or a part of one, that nobody has checked yet."""
    if not isinstance(entry, Mapping):
        return
    if isinstance(entry.get("wheel"), str):
        yield f"{place}.wheel", entry["wheel"]
    parts = entry.get("parts")
    for number, part in enumerate(parts if isinstance(parts, list) else []):
        yield from _named_wheels(part, f"{place}.parts.{number}")


def _section(config: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """A part of a config that nobody has checked yet; empty if it is not there or no mapping."""
    found: Any = config
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, dict) else {}
