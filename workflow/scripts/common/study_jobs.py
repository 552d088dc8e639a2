"""The jobs of a study as Snakemake sees them: which rule, which files, which keys of the config.

What else must know them (dvc.yaml, tests) asks here, so that nothing is listed a second time.
"""

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake.api import SnakemakeApi
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    Quietness,
    ResourceSettings,
)


@dataclass(frozen=True)
class Job:
    """One job. phase: the file under workflow/rules that its rule stands in, without its ending; model:
    None for a job of the whole study; outputs: by name, those without one by their number; inputs: all
    but code; settings: values of the dotted keys of the config that its rule declares."""

    rule: str
    phase: str
    model: str | None
    inputs: tuple[str, ...]
    code: tuple[str, ...]
    outputs: Mapping[str, str]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """All jobs of a study, finished or not; the rules of each phase, those without a job too, in the order
    in which the Snakefile includes them; and the files that make the study complete."""

    jobs: list[Job]
    rules: Mapping[str, list[str]]
    complete: tuple[str, ...]


def jobs_of_study(root: Path, config: Path) -> Study:
    """What Snakemake would run for a study if nothing were there yet; it runs nothing.

    Raises:
        SystemExit: the config is wrong; with the line that says how.
    """
    told = io.StringIO()
    with (
        contextlib.redirect_stdout(told),
        SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api,
    ):
        workflow_api = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=[config]),
            snakefile=root / "Snakefile",
            workdir=root,
        )
        workflow_api.dag(DAGSettings(forceall=True)).printrulegraph()
        # Snakemake prints graphs and lists, but hands out its jobs only here.
        workflow = workflow_api._workflow
        jobs = list(workflow.dag.jobs)
        rules: dict[str, list[str]] = {}
        for rule in workflow.rules:
            if rule.output:
                rules.setdefault(_phase(rule), []).append(rule.name)
        order = [rule.name for rule in workflow.rules]
        jobs.sort(key=lambda job: (order.index(job.rule.name), list(map(str, job.output))))
        complete = tuple(str(path) for job in jobs if job.rule.name == "all" for path in job.input)
        return Study([_job(job) for job in jobs if job.output], rules, complete)


def _phase(rule: Any) -> str:
    return Path(rule.snakefile).stem


def _job(job: Any) -> Job:
    code = list(job.input.get("code", []))
    named = {position: name for name, (position, _) in job.output._get_names()}
    return Job(
        rule=job.rule.name,
        phase=_phase(job.rule),
        model=job.wildcards.get("model"),
        inputs=tuple(str(path) for path in job.input if path not in code),
        code=tuple(map(str, code)),
        outputs={named.get(i, str(i)): str(path) for i, path in enumerate(job.output)},
        settings=job.params.get("settings", {}),
    )
