"""A small config for a model and a text: as few keys as will run, each explained, checked before it is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from ..study.config import complete_config
from ..study.materials import FILE, Materials, read_materials
from ..study.schema import Schema, read_schema
from .check import Report
from .sizing import Sizes, largest
from .study_text import FEWEST, SHARED, Source, prompts_in

_TEMPLATE = """\
# A first study of {title}, written by `selfrepair init`. To run it: make study CONFIG={place}
# {time}. Every key is explained in config/README.md; what is left out has a default.
study: {study} # results go to results/{study}/, figures to figures/{study}/
{dtype}
models:
  {key}: # the name of the model's folder there{model}

text:
  prompts: {prompts} # windows of text; a head's top tokens are the 2 % of their tokens where its direct effect is largest
  tokens_per_prompt: {tokens_per_prompt}
  sources: # the `licence` of each is written beside its prompts{sources}

ablations:
  resample: # each head's output is replaced by its output on another prompt
    prompts: {swept} # tokens are drawn from the first so many prompts
    prompts_per_head: {drawn} # prompts drawn of each head: more of them, narrower intervals, a longer sweep
    tokens_per_head: null # all of the head's top tokens in them: a prompt costs the same for one token as for all
    random_tokens_per_head: {random} # tokens drawn from all
    map: true # measure which later part repairs how much (E13, E14)

experiments: # on single heads and neurons (E3, E4, E7 to E10), on iterative inference (E11)
  prompts: {chosen}
  iterative_prompts: {iterative}
  iterative_tokens_per_head: {iterative_top}
  narrow_prompts: 0 # 32: every head on the prompts of a narrow task as well (E18)
{plan}"""


@dataclass(frozen=True)
class Checkout:
    """Where studies run, and what their configs are checked against.

    root: the checkout, which relative paths in a config start from.
    """

    root: Path
    schema: Schema
    materials: Materials

    @classmethod
    def at(cls, root: Path) -> Checkout:
        """The checkout in a folder; OSError or InputError if its config/ cannot be read."""
        schema = read_schema(root / "config/schema.yaml")
        return cls(root, schema, read_materials(root / "config" / FILE, schema))

    def written(self, path: str | Path) -> str:
        """A path as a config of this checkout says it: from its root if it lies there."""
        path = Path(path).absolute()
        inside = path.is_relative_to(self.root)
        return f"./{path.relative_to(self.root)}" if inside else str(path)


@dataclass(frozen=True)
class FirstStudy:
    """The text of a config, and the minutes that its study takes here (None: not known)."""

    yaml: str
    minutes: float | None


def first_study(
    report: Report,
    source: Source | None,
    *,
    path: Path,
    checkout: Checkout,
    dtype: str,
    prompts: int | None,
    minutes: float,
) -> FirstStudy:
    """A config for a model that was checked.

    Args:
        source: of `source_of`; None: the texts of the default study.
        path: where it will lie: the study is named like the file.
        prompts: of the sample; None: as many as the time allows.
        minutes: that the study may take on this machine, if the model is small enough.
    Raises:
        InputError: too little text; or what it says is no valid config.
    """
    length, most = min(128, report.facts.context_length + 1), None
    if source is not None and source["kind"] == "file":
        length, most = prompts_in(
            source,
            report.candidate.tokenizer,
            wanted=prompts or 2 * FEWEST,
            most=prompts or 1000,
            longest=length,
            bos=report.candidate.bos is not None,
        )
    key = _name(report.candidate.title)

    def written(sizes: Sizes, took: float | None = None) -> str:
        return _yaml(
            report, source, checkout, path, key, dtype=dtype, length=length, sizes=sizes, took=took
        )

    def planned(sizes: Sizes) -> Mapping[str, Any]:
        config = yaml.safe_load(written(sizes))
        config["models"][key]["shape"] = asdict(report.facts.shape)
        return complete_config(config, checkout.schema, materials=checkout.materials)

    sizes, took = largest(planned, key, minutes=minutes, most=most, prompts=prompts)
    text = written(sizes, took)
    complete_config(yaml.safe_load(text), checkout.schema, materials=checkout.materials)
    return FirstStudy(text, took)


def _yaml(
    report: Report,
    source: Source | None,
    checkout: Checkout,
    path: Path,
    key: str,
    *,
    dtype: str,
    length: int,
    sizes: Sizes,
    took: float | None,
) -> str:
    """The config as it is written."""
    candidate, rate = report.candidate, report.costs.rate
    model = {"title": candidate.title} | candidate.entry
    for name in ("name", "gguf"):
        if Path(model.get(name, "")).is_absolute():
            model[name] = checkout.written(model[name])
    sources: Mapping[str, Any] = {name: {"weight": weight} for name, weight in SHARED.items()}
    if source is not None:
        place = {k: checkout.written(v) for k, v in source.items() if Path(v).is_absolute()}
        sources = {"mine": source | place}
    plan = {"hardware": report.costs.hardware, "tflops": float(f"{(rate or 0) / 1e12:.2g}")}
    return _TEMPLATE.format(
        **asdict(sizes),
        title=candidate.title,
        place=checkout.written(path).removeprefix("./"),
        time="How long it takes is not known" if took is None else f"About {took:.0f} minutes here",
        study=_name(path.stem).replace(".", "-"),
        dtype="" if dtype == "float32" else f"dtype: {dtype}\n",
        key=key,
        model=_entries(model, "    "),
        tokens_per_prompt=length,
        sources=_entries(sources, "    "),
        plan=f"\n# Measured here; `make plan CONFIG=...` counts hours with it.\nplan:{_entries(plan, '  ')}\n"
        if rate
        else "",
    )


def _entries(values: Mapping[str, Any], indent: str) -> str:
    """A line for each key; JSON is YAML."""
    return "".join(f"\n{indent}{key}: {_value(value)}" for key, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_value(part)}" for key, part in value.items()) + "}"
    plain = isinstance(value, str) and re.fullmatch(r"[\w./-]+", value)
    safe = plain and yaml.safe_load(value) == value
    return str(value) if safe else json.dumps(value, ensure_ascii=False)


def _name(text: str) -> str:
    """A name that a config allows for a study or a model."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).lstrip("-._") or "mine"
