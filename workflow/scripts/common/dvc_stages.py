"""The phases of the recorded studies as stages of DVC: dvc.yaml, written from the jobs that Snakemake has.

A stage calls Snakemake for the jobs of one phase, of one model where all its jobs are about one. Its
dependencies, parameters and outputs are those of its jobs.
"""

import io
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from common.packed_records import ARCHIVE
from common.recorded import DEFAULT, WITHOUT_TOP_TOKENS
from common.records import FOLDER
from common.study_jobs import Job, Study
from selfrepair.errors import InputError
from selfrepair.files.storage import sidecar
from selfrepair.study.materials import FILE, Materials, keys_taken
from selfrepair.study.sizes import size_key

HEADER = """\
# Written by `make dvc-stages`; `make check` compares. The phases of the recorded studies as DVC stages:
# Snakemake runs them and decides what is to be done, DVC keeps what came out.
"""
MATERIALS = f"config/{FILE}"
# What every rule follows.
ALWAYS = ["Snakefile", "config/schema.yaml"]
ALWAYS += [f"workflow/rules/{name}.smk" for name in ("common", "dependencies", "model_jobs")]
# How each file of any study was made: without it a fresh clone would not know that all is current. They are packed
# whenever one has changed.
RECORDS_STAGE, RECORDS, PACKED_RECORDS = "records", str(FOLDER), str(ARCHIVE)
PACKING_RECORDS = [
    f"workflow/scripts/{name}.py" for name in ("pack_records", "common/packed_records")
]
# Of gathered measurements the store has the shards in one packed file each.
PACKED = ("sweeps", "experiments")
PACKING = ["workflow/scripts/pack_shards.py", "workflow/selfrepair/files/archives.py"]
TOP_TOKENS = "clean.safetensors"
# A model of a stage that is written once for several.
MODEL = "${item}"
PROGRAMS = 'PATH="$PWD/.venv/bin:$PATH"'


@dataclass(frozen=True)
class Recorded:
    """A study in dvc.yaml. file: its config; config: as it is written, because DVC reads it so, without
    defaults; study: its jobs; models: those that are recorded, None: all."""

    file: str
    config: Mapping[str, Any]
    study: Study
    models: Collection[str] | None = None

    @property
    def name(self) -> str:
        return str(self.config["study"])

    def stage(self, phase: str) -> str:
        """What the stage of a phase is called."""
        return phase if self.file == DEFAULT else f"{self.name}-{phase}"

    def keeps(self, path: str) -> bool:
        """Whether the store has this output."""
        return self.file not in WITHOUT_TOP_TOKENS or PurePath(path).name != TOP_TOKENS

    def phases(self) -> dict[str, list[Job]]:
        """The jobs of each recorded phase: of the models that are, and of all if all models are."""
        found: dict[str, list[Job]] = {}
        left_out: set[str] = set()  # files
        for job in self.study.jobs:
            if job.model and self.models is not None and job.model not in self.models:
                left_out |= set(job.outputs.values())
            else:
                found.setdefault(job.phase, []).append(job)
        kept = {}
        for phase, jobs in found.items():
            # A phase of the study as a whole is recorded if all that its jobs read is.
            if _of_models(jobs) or not any(left_out & set(job.inputs) for job in jobs):
                kept[phase] = jobs
            else:
                left_out |= {path for job in jobs for path in job.outputs.values()}
        return kept


def _of_models(jobs: Iterable[Job]) -> bool:
    """Whether each of the jobs is about one model."""
    return all(job.model for job in jobs)


def dvc_yaml(studies: Iterable[Recorded], materials: Materials) -> str:
    """The text of dvc.yaml.

    Raises:
        InputError: a key that a stage depends on is not stated in a study's config, or two studies have
            one name.
    """
    studies = list(studies)
    names = [each.name for each in studies]
    for number, each in enumerate(studies):
        if each.name in names[:number]:
            raise InputError(f"{each.file}: another recorded study is called {each.name} too")
    stages: dict[str, Any] = {}
    ends: list[str] = []
    for each in studies:
        stages |= _stages(each, materials)
        *_, last = each.phases().values()
        ends += dict.fromkeys(_tracked(path, None) for job in last for path in job.outputs.values())
    stages[RECORDS_STAGE] = {
        "cmd": f"{PROGRAMS} python {PACKING_RECORDS[0]} {' '.join(records_kept(studies))}",
        "deps": [*ends, RECORDS, *PACKING_RECORDS],
        "outs": _kept([PACKED_RECORDS]),
    }
    plots = [
        job.outputs["png"]
        for each in studies
        for jobs in each.phases().values()
        for job in jobs
        if "png" in job.outputs and not job.model
    ]
    return HEADER + _dumped({"stages": stages, "plots": plots})


def records_kept(studies: Iterable[Recorded]) -> list[str]:
    """What the paths of the files begin with whose records of Snakemake's are kept."""
    kept: dict[str, None] = {}
    for each in studies:
        if set(each.phases()) == {job.phase for job in each.study.jobs}:
            paths = [f"results/{each.name}/", f"figures/{each.name}/"]
        else:
            jobs = [job for jobs in each.phases().values() for job in jobs]
            paths = [
                f"results/{each.name}/{job.model}/" if job.model else path
                for job in jobs
                for path in job.outputs.values()
            ]
        kept |= dict.fromkeys(paths)
    return list(kept)


def _stages(recorded: Recorded, materials: Materials) -> dict[str, Any]:
    """The stages of one study, by name."""
    study, phases = recorded.study, recorded.phases()
    producers = {path: job.phase for job in study.jobs for path in job.outputs.values()}
    # A model's own results, and what they are made from, are behind the claims and the figures.
    behind = {
        path for job in study.jobs if job.model for path in (*job.inputs, *job.outputs.values())
    }
    stages = {}
    for phase, jobs in phases.items():
        per_model, last = _of_models(jobs), phase == list(study.rules)[-1]
        read = [(path, job.model if per_model else None) for job in jobs for path in job.inputs]
        read += [(path, None) for path in study.complete if last and path not in behind]
        # What is not kept its sidecar vouches for, and the stage makes it again if it has to.
        again = {producers[path] for path, _ in read if not recorded.keeps(path)} - {phase}
        kept = [(p if recorded.keeps(p) else str(sidecar(Path(p))), model) for p, model in read]
        outs = _outputs(recorded, jobs, per_model)
        packed = [path for path in outs["outs"] if PurePath(path).name in PACKED]
        allowed = [rule for name in [*sorted(again), phase] for rule in study.rules[name]]
        stage = {
            "cmd": _command(recorded, phase, allowed, packed, per_model, last=last),
            "deps": [*_read(kept, producers, phase), *_code(jobs, phase, packed)],
            "params": _parameters(recorded, jobs, materials, per_model),
            "outs": _kept(outs["outs"]),
        } | ({"metrics": _kept(outs["metrics"])} if outs["metrics"] else {})
        models = list(dict.fromkeys(job.model for job in jobs))
        name = recorded.stage(phase)
        stages[name] = {"foreach": _flow(models), "do": stage} if per_model else stage
    return stages


def _command(
    recorded: Recorded,
    phase: str,
    rules: Iterable[str],
    packed: Iterable[str],
    per_model: bool,
    *,
    last: bool,
) -> str:
    """Snakemake for these rules alone: what is missing upstream is then a clear error. packed: folders whose
    shards are packed then."""
    target = "all" if last else f"{phase}@{MODEL}" if per_model else phase
    allowed = " ".join([*rules, target])
    config = "" if recorded.file == DEFAULT else f"--configfile {recorded.file} "
    run = f"{PROGRAMS} snakemake {config}--allowed-rules {allowed} $SNAKEMAKE_ARGS -- {target}"
    return " && ".join([run, *(f"{PROGRAMS} python {PACKING[0]} {path}" for path in packed)])


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


def _code(jobs: Iterable[Job], phase: str, packed: Collection[str]) -> list[str]:
    modules = {path for job in jobs for path in job.code} | set(PACKING if packed else ())
    return [*ALWAYS, f"workflow/rules/{phase}.smk", *sorted(modules)]


def _outputs(recorded: Recorded, jobs: Iterable[Job], per_model: bool) -> dict[str, list[str]]:
    """The tracked files and folders of a stage: metrics as their rules call them, and the others."""
    found: dict[str, dict[str, None]] = {"outs": {}, "metrics": {}}
    for job in jobs:
        for name, path in job.outputs.items():
            kind = "metrics" if name == "metrics" else "outs"
            if recorded.keeps(path):
                found[kind][_tracked(path, job.model if per_model else None)] = None
    return {kind: list(paths) for kind, paths in found.items()}


def _tracked(path: str, model: str | None) -> str:
    """The output of DVC that a file belongs to: itself, a folder of shards, or the study's figures.

    model: to be written as the template's.
    """
    top, study, *rest = PurePath(path).parts
    rest = rest[:2] if top == "results" else []
    if model is not None and rest and rest[0] == model:
        rest[0] = MODEL
    return "/".join([top, study, *rest])


def _parameters(
    recorded: Recorded, jobs: Iterable[Job], materials: Materials, per_model: bool
) -> list[dict[str, list[str]]]:
    """The keys that the jobs' rules declare, in the file that states them."""
    config = recorded.config
    read = {key for job in jobs for key in _keys_read(job)}
    shared = [key for key in keys_taken(config, materials) if _covers(read, key)]
    own = {_stated(key, recorded) for key in {"study", *read} if key not in shared}
    own = _whole_sections(own, config)
    if per_model:
        own = _of_each_model(own, list(config["models"]))
    found = {recorded.file: sorted(own)} | ({MATERIALS: sorted(shared)} if shared else {})
    return [{file: _flow(keys)} for file, keys in found.items()]


def _keys_read(job: Job) -> Iterable[str]:
    """The keys that decide what a job's settings are: the study's, and those of its model that replace
    them."""
    for key in job.settings:
        yield key.replace("{model}", job.model or "")
        size = size_key(key)
        if job.model and size:
            yield f"models.{job.model}.sizes.{size}"


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
            templates.add(".".join(["models", MODEL, *rest[1:]]))
    # A key that one model states and another does not counts through the section around it, of all.
    return {key for key in templates if not any(key.startswith(f"{k}.") for k in templates)}


def _covers(read: Collection[str], key: str) -> bool:
    """Whether a key of the materials is among those read, or a section around one; texts are
    `sources.<name>` there."""
    if key.startswith("sources."):
        return "text.sources" in read
    return any(name == key or name.startswith(f"{key}.") for name in read)


def _stated(key: str, recorded: Recorded) -> str:
    """The key, or the closest section around it that the config states: a key that is added there later
    counts too."""
    config: Any = recorded.config
    found: list[str] = []
    for part in key.split("."):
        if not isinstance(config, Mapping) or part not in config:
            break
        config = config[part]
        found.append(part)
    if not found:
        raise InputError(
            f"{recorded.file}: state {key.split('.')[0]}, even at its default: stages of DVC depend on {key}, "
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
    return re.sub(r"(?<!stages:)\n(?=stages:|plots:|  [\w-]+:\n)", "\n\n", stream.getvalue())
