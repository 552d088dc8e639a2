"""The schema of a study's config: which keys there are, their defaults, and one line per mistake."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from ..ablations import ABLATIONS
from ..errors import InputError
from ..nearest import nearest

Schema = dict[str, Any]

# Keys of earlier versions, and what they are called now; * stands for any name.
RENAMED = {
    "models.*.heads": "models.*.chosen_heads",
    "experiments.heads": "experiments.heads_per_model",
    "sweep.batch": "memory.prompts_at_once",
    "sweep.chunk": "memory.rows_at_once",
    "text.sources.*.commit": "text.sources.*.revision",
    "plan.device": "plan.hardware",
    "experiments.tokens_per_head": "experiments.iterative_tokens_per_head",
}
# Values of earlier versions, and what to write now.
REPLACED = {
    ("sweep.tokens", "top"): (
        "write sampled, with tokens_per_head: null and random_tokens_per_head: 0 under each ablation"
    ),
}


# Values of a config, bytes of its file, and the largest number: far more than any study states.
_VALUES, _BYTES, _LARGEST = 100_000, 1 << 20, 10**15


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        InputError: the file is no YAML; the line says where it goes wrong, not in which file.
        OSError: it cannot be read.
    """
    if path.is_file() and path.stat().st_size > _BYTES:
        raise InputError(f"this is no config: it has over {_BYTES >> 20} MB")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise InputError("this is no config: it is nested too deeply") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InputError(f"this is no YAML: {where}{error.problem or error.context}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).replace('"<unicode string>", ', "").split())
        raise InputError(f"this is no YAML: {reason}") from error


def read_schema(path: Path) -> Schema:
    """The schema in a file; a sweep of every ablation of the registry is among its keys."""
    schema: Schema = read_yaml(path)
    schema["properties"]["ablations"]["properties"] = {
        name: {"$ref": "#/$defs/ablation"} for name in ABLATIONS
    }
    schema["$defs"]["sizes"]["properties"]["ablations"]["properties"] = {
        name: {"$ref": "#/$defs/ablation_sizes"} for name in ABLATIONS
    }
    return schema


def definition(schema: Schema, name: str) -> Schema:
    """One of the schema's definitions, as a schema of its own."""
    return schema["$defs"][name] | {"$defs": schema["$defs"]}


def check_plain(content: Any) -> None:
    """Refuse what YAML can say and no config means, before anything walks through all of it.

    Raises:
        InputError: aliases that multiply or contain themselves; keys that are no text; numbers that are
            infinite, none, or larger than any count; dates, sets and bytes.
    """
    pending: list[tuple[str, Any, int]] = [("", content, 0)]
    seen = 0
    while pending:
        place, value, depth = pending.pop()
        seen += 1
        if seen > _VALUES or depth > 50:
            raise InputError(
                f"this is no config: it has over {_VALUES:,} values, or is nested too deeply (aliases that "
                "multiply?)"
            )
        where = place or "config"
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str):
                    raise InputError(f"{where}: the key {key!r:.80} is no text; put it in quotes")
            pending += [(f"{place}.{k}" if place else k, v, depth + 1) for k, v in value.items()]
        elif isinstance(value, list | tuple):
            pending += [(f"{where}.{at}", each, depth + 1) for at, each in enumerate(value)]
        elif isinstance(value, int | float) and not abs(value) <= _LARGEST:
            raise InputError(f"{where}: {value!r:.40} is no number that a study can use")
        elif not isinstance(value, str | int | float | None):
            raise InputError(
                f"{where}: a {type(value).__name__} is no value of a config; put it in quotes"
            )


def check(content: Any, schema: Schema) -> None:
    """Compare a config with the schema.

    Raises:
        InputError: one line that names the first wrong key, its value and what is allowed.
    """
    errors = sorted(Draft202012Validator(schema).iter_errors(content), key=lambda e: str(e.path))
    if errors:
        # Names and values may be anything: one line, and no endless one.
        raise InputError(" ".join(_explain(errors[0], schema).split())[:1000])


def did_you_mean(wrong: Any, known: Iterable[Any]) -> str:
    """ " (did you mean resample?)" for a word that is nearly one of those known, else nothing."""
    found = nearest(wrong, known)
    return f" (did you mean {found}?)" if found else ""


def check_names(config: Any) -> None:
    """InputError, with what to write now, for a key or a value of an earlier version."""
    for old, new in RENAMED.items():
        *parents, key = old.split(".")
        for place, section in _sections(config, parents):
            if isinstance(section, Mapping) and key in section:
                # The names that * stood for are the same in both.
                names = iter(n for n, p in zip(place, parents, strict=True) if p == "*")
                now = ".".join(next(names) if part == "*" else part for part in new.split("."))
                raise InputError(f"{'.'.join(place)}: {key} is now {now}")
    for (key, value), remedy in REPLACED.items():
        for _, found in _sections(config, key.split(".")):
            if found == value:
                raise InputError(f"{key}: {value} is no more; {remedy}")


def _sections(value: Any, pattern: list[str]) -> Iterator[tuple[list[str], Any]]:
    """The parts of a config that a pattern of keys matches, each with its keys."""
    if not pattern:
        yield [], value
    elif isinstance(value, Mapping):
        for key in list(value) if pattern[0] == "*" else [pattern[0]]:
            for place, found in _sections(value.get(key), pattern[1:]):
                yield [str(key), *place], found


def fill_defaults(value: Any, schema: Schema, root: Schema | None = None) -> None:
    """Put every default of the schema that the config leaves out into it.

    root: the schema that references are looked up in, by default `schema`.
    """
    root = schema if root is None else root
    schema = _resolved(schema, root)
    if not isinstance(value, dict):
        return
    known = schema.get("properties", {})
    for key, part in known.items():
        if "default" in part:
            value.setdefault(key, copy.deepcopy(part["default"]))
        if key in value:
            fill_defaults(value[key], part, root)
    others = schema.get("additionalProperties")
    if isinstance(others, dict):
        for key in set(value) - set(known):
            fill_defaults(value[key], others, root)


def _resolved(schema: Schema, root: Schema) -> Schema:
    """A part of a schema, or what it refers to."""
    return root["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def _explain(error: Any, schema: Schema) -> str:
    """What the validator found, in one line: key, value, what is allowed."""
    key = ".".join(str(part) for part in error.absolute_path) or "config"
    if error.validator == "additionalProperties":
        return f"{key}: {_explain_unknown(error, schema)}"
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return f"{key}: needs the key {', '.join(missing)}"
    if error.validator == "dependentRequired":
        for given, needed in error.validator_value.items():
            missing = [name for name in needed if name not in error.instance]
            if given in error.instance and missing:
                return f"{key}: {given} needs the key {', '.join(missing)}"
    if error.validator == "oneOf":
        choices = " or ".join("+".join(c["required"]) for c in error.validator_value)
        return f"{key}: give either {choices}, not both or neither"
    meaning = error.schema.get("description") if isinstance(error.schema, dict) else None
    if (
        error.validator == "anyOf"
    ):  # a word, or something else: what is wrong with it as that which it is
        is_word = isinstance(error.instance, str)
        own = [each for each in error.context if (each.validator == "enum") == is_word]
        error = max(own or [error], key=lambda each: len(each.absolute_path))
        key = ".".join(str(part) for part in error.absolute_path)
    message = error.message.splitlines()[0]
    if error.validator == "enum":
        message += did_you_mean(error.instance, error.validator_value)
    return f"{key}: {message}" + (f" ({meaning})" if meaning else "")


def _explain_unknown(error: Any, schema: Schema) -> str:
    """Keys that a section has not: what each is nearest to, or where a key of this name belongs."""
    known = sorted(error.schema.get("properties", {}))
    told = []
    for name in sorted(map(str, set(error.instance) - set(known))):
        places = [place for place in _places(schema, schema) if place.rpartition(".")[2] == name]
        highest = sorted(places, key=lambda place: place.count("."))[:2]
        elsewhere = f" (did you mean {' or '.join(highest)}?)" if highest else ""
        told.append(name + (did_you_mean(name, known) or elsewhere))
    return f"unknown key {', '.join(told)}; known keys are {', '.join(known)}"


def _places(schema: Schema, root: Schema, parents: str = "") -> Iterator[str]:
    """Every key of a schema with its dotted name; * stands for any name."""
    schema = _resolved(schema, root)
    others = schema.get("additionalProperties")
    parts = schema.get("properties", {}) | ({"*": others} if isinstance(others, dict) else {})
    for key, part in parts.items():
        if key != "*":
            yield f"{parents}{key}"
        yield from _places(part, root, f"{parents}{key}.")
