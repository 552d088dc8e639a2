"""Texts and wheels that several studies use: stated once, in materials.yaml, and named by studies.

A study's config is completed with what it uses of them and nothing else, so that the config in a
result's provenance is whole, and a new entry changes no study.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from .schema import Schema, check, definition, read_yaml

FILE = "materials.yaml"

# `sources` and `wheels` by name.
Materials = Mapping[str, Mapping[str, Any]]


def read_materials(path: Path, schema: Schema) -> Materials:
    """The materials in a file, checked against the schema's definition of them.

    Raises:
        InputError: the file is no YAML, or its content is wrong; in one line.
        OSError: it cannot be read.
    """
    try:
        materials: Materials = read_yaml(path)
        check(materials, definition(schema, "materials"))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return materials


def with_materials(config: Any, materials: Materials) -> Any:
    """A study's config, as it was written, with the sources and wheels that it takes by name.

    A source without `kind` is the one of that name in `materials`; what the study states of it
    replaces what stands there. A wheel is the study's own of that name, else that of `materials`.

    Raises:
        InputError: neither the study nor `materials` has a source or wheel of this name.
    """
    if not isinstance(config, Mapping):
        return config
    complete = copy.deepcopy(dict(config))
    sources = _section(complete, "text", "sources")
    for name in _taken_sources(sources):
        if name not in materials["sources"]:
            raise InputError(
                f"text.sources.{name}: has no `kind`, and {FILE} has no source of this name; "
                f"it has {', '.join(sorted(materials['sources']))}"
            )
        sources[name] = copy.deepcopy(materials["sources"][name]) | (sources[name] or {})
    wheels = complete.setdefault("wheels", {})
    if not isinstance(wheels, dict):  # left to the schema to refuse
        return complete
    for place, wheel in _named_wheels(complete):
        if wheel not in wheels and wheel not in materials["wheels"]:
            known = sorted({*wheels, *materials["wheels"]})
            raise InputError(
                f"{place}.wheel: {wheel!r} is not a key of wheels, here or in {FILE}; "
                f"there are {', '.join(known)}"
            )
        wheels.setdefault(wheel, copy.deepcopy(materials["wheels"].get(wheel)))
    return complete


def used_wheels(config: Mapping[str, Any]) -> dict[str, Any]:
    """The wheels of a completed config that a model or source of it names."""
    used = {wheel for _, wheel in _named_wheels(config)}
    return {name: entry for name, entry in config["wheels"].items() if name in used}


def keys_taken(config: Mapping[str, Any], materials: Materials) -> list[str]:
    """The keys of the materials file that a study, as it was written, takes: `sources.news` and so on.

    DVC reads files as they are written: these are the parameters that its stages watch.
    """
    sources = list(_taken_sources(_section(config, "text", "sources")))
    own = _section(config, "wheels")
    wheels = {wheel for _, wheel in _named_wheels(with_materials(config, materials))} - set(own)
    return [f"sources.{name}" for name in sources] + [f"wheels.{name}" for name in sorted(wheels)]


def _taken_sources(sources: Mapping[str, Any]) -> Iterator[str]:
    """Names of the sources that a study takes from the materials: those without a `kind`."""
    for name, source in list(sources.items()):
        if source is None or (isinstance(source, Mapping) and "kind" not in source):
            yield name


def _named_wheels(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The place and name of each wheel that a model or source of a config names."""
    for keys in (("models",), ("text", "sources")):
        for name, entry in _section(config, *keys).items():
            if isinstance(entry, Mapping) and isinstance(entry.get("wheel"), str):
                yield f"{'.'.join(keys)}.{name}", entry["wheel"]


def _section(config: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """A part of a config that nobody has checked yet; empty if it is not there or no mapping."""
    found: Any = config
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, dict) else {}
