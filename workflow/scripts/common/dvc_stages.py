"""The phases of a study as stages of DVC: dvc.yaml, written from the jobs that Snakemake has.

A stage calls Snakemake for the jobs of one phase, of one model where all its jobs are about one. Its
dependencies, parameters and outputs are those of its jobs.
"""

import io
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from common.study_jobs import Job, Study
from selfrepair.errors import InputError
from selfrepair.study.materials import FILE, Materials, keys_taken

HEADER = """\
# Written by `make dvc-stages`; `make check` compares. The phases of the default study as DVC stages:
# Snakemake runs them and decides what is to be done, DVC keeps what came out.
"""
CONFIG, MATERIALS = "config/config.yaml", f"config/{FILE}"
# What every rule follows.
ALWAYS = ["Snakefile", "config/schema.yaml"]
ALWAYS += [f"workflow/rules/{name}.smk" for name in ("common", "dependencies", "model_jobs")]
# How each file was made: without it a fresh clone would not know that all is current.
RECORDS = ".snakemake/metadata"


def dvc_yaml(study: Study, config: Mapping[str, Any], materials: Materials) -> str:
    """The text of dvc.yaml.

    Args:
        config: the study's, as it is written: DVC reads it so, without defaults.
    Raises:
        InputError: a key that a stage depends on is not stated in the config.
    """
    producers = {path: job.phase for job in study.jobs for path in job.outputs.values()}
    phases = list(dict.fromkeys(job.phase for job in study.jobs))
    stages = {}
    for phase in phases:
        jobs = [job for job in study.jobs if job.phase == phase]
        per_model, last = all(job.model for job in jobs), phase == phases[-1]
        read = [(path, job.model if per_model else None) for job in jobs for path in job.inputs]
        read += [(path, None) for path in study.complete if last]
        outs = _outputs(jobs, per_model)
        stage = {
            "cmd": _command(phase, study.rules[phase], per_model, last=last),
            "deps": [*_read(read, producers, phase), *_code(jobs, phase)],
            "params": _parameters(jobs, config, materials, per_model),
            "outs": _kept([*outs["outs"], *([RECORDS] if last else [])]),
        } | ({"metrics": _kept(outs["metrics"])} if outs["metrics"] else {})
        stages[phase] = {"foreach": "${models}", "do": stage} if per_model else stage
    plots = [
        _tracked(job.outputs["png"], None, whole=True)
        for job in study.jobs
        if "png" in job.outputs and not job.model
    ]
    return HEADER + _dumped({"vars": [CONFIG], "stages": stages, "plots": plots})


def _command(phase: str, rules: Iterable[str], per_model: bool, *, last: bool) -> str:
    """Snakemake for the phase's rules alone: what is missing upstream is then a clear error."""
    target = "all" if last else f"{phase}@${{key}}" if per_model else phase
    allowed = " ".join([*rules, target])
    return (
        f'PATH="$PWD/.venv/bin:$PATH" snakemake --allowed-rules {allowed} '
        f"$SNAKEMAKE_ARGS -- {target}"
    )


def _read(
    read: Iterable[tuple[str, str | None]], producers: Mapping[str, str], phase: str
) -> list[str]:
    """What other phases made and files of this repository: (path, model to write as a template)."""
    made = {
        _tracked(path, model)
        for path, model in read
        if producers.get(path, phase) != phase and path in producers
    }
    own = {path for path, _ in read if path not in producers and not PurePath(path).is_absolute()}
    return [*sorted(made), *sorted(own)]


def _code(jobs: Iterable[Job], phase: str) -> list[str]:
    modules = {path for job in jobs for path in job.code}
    return [*ALWAYS, f"workflow/rules/{phase}.smk", *sorted(modules)]


def _outputs(jobs: Iterable[Job], per_model: bool) -> dict[str, list[str]]:
    """The tracked files and folders of a stage: metrics as their rules call them, and the others."""
    found: dict[str, dict[str, None]] = {"outs": {}, "metrics": {}}
    for job in jobs:
        for name, path in job.outputs.items():
            kind = "metrics" if name == "metrics" else "outs"
            found[kind][_tracked(path, job.model if per_model else None)] = None
    return {kind: list(paths) for kind, paths in found.items()}


def _tracked(path: str, model: str | None, *, whole: bool = False) -> str:
    """The output of DVC that a file belongs to: itself, a folder of shards, or the study's figures.

    model: to be written as the template's key; whole: itself in any case.
    """
    top, _, *rest = PurePath(path).parts
    if not whole:
        rest = rest[:2] if top == "results" else []
    if model is not None and rest and rest[0] == model:
        rest[0] = "${key}"
    return "/".join([top, "${study}", *rest])


def _parameters(
    jobs: Iterable[Job], config: Mapping[str, Any], materials: Materials, per_model: bool
) -> list[dict[str, list[str]]]:
    """The keys that the jobs' rules declare, in the file that states them."""
    read = {key.replace("{model}", job.model or "") for job in jobs for key in job.settings}
    shared = [key for key in keys_taken(config, materials) if _covers(read, key)]
    own = {_stated(key, config) for key in {"study", *read} if key not in shared}
    own = _whole_sections(own, config)
    if per_model:
        own = _of_each_model(own, list(config["models"]))
    found = {CONFIG: sorted(own)} | ({MATERIALS: sorted(shared)} if shared else {})
    return [{file: _flow(keys)} for file, keys in found.items()]


def _of_each_model(keys: Collection[str], models: Collection[str]) -> set[str]:
    """Keys of models as templates; DVC takes a dot in a model's name for a level: then all models."""
    dotted = any("." in model for model in models)
    templates = set()
    for key in keys:
        top, *rest = key.split(".")
        if top != "models":
            templates.add(key)
        elif dotted:
            templates.add("models")
        else:
            templates.add(".".join(["models", "${key}", *rest[1:]]))
    if "models.${key}" in templates:
        templates = {key for key in templates if not key.startswith("models.${key}.")}
    return templates


def _covers(read: Collection[str], key: str) -> bool:
    """Whether a key of the materials is among those read; texts are `sources.<name>` there."""
    return key in read or (key.startswith("sources.") and "text.sources" in read)


def _stated(key: str, config: Any) -> str:
    """The key, or the closest section around it that the config states: a key that is added there later
    counts too."""
    found: list[str] = []
    for part in key.split("."):
        if not isinstance(config, Mapping) or part not in config:
            break
        config = config[part]
        found.append(part)
    if not found:
        raise InputError(
            f"{CONFIG}: state {key.split('.')[0]}, even at its default: stages of DVC depend on {key}, "
            "and DVC reads the file as it is written"
        )
    return ".".join(found)


def _whole_sections(keys: Collection[str], config: Mapping[str, Any]) -> set[str]:
    """Keys without those inside another; a section that is read to its last key is named as a whole."""
    whole = set()
    for key, value in config.items():
        inside = {k for k in keys if k.startswith(f"{key}.")}
        parts = {k.removeprefix(f"{key}.") for k in inside}
        if key in keys or (parts and _whole_sections(parts, value) == set(map(str, value))):
            whole.add(str(key))
        elif parts:
            whole |= {f"{key}.{part}" for part in _whole_sections(parts, value)}
    return whole


def _kept(paths: Iterable[str]) -> list[dict[str, Any]]:
    """Outputs that DVC leaves in place before it runs a stage: Snakemake decides what is made anew."""
    return [{path: _flow({"persist": True})} for path in paths]


def _flow(content: Any) -> Any:
    """Written on one line."""
    styled = CommentedMap(content) if isinstance(content, dict) else CommentedSeq(content)
    styled.fa.set_flow_style()
    return styled


def _dumped(content: Any) -> str:
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(content, stream)
    return re.sub(r"(?<!stages:)\n(?=stages:|plots:|  \w+:\n)", "\n\n", stream.getvalue())
