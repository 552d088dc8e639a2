"""Files that were made under another config: the keys that decide about them have other values now."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from common.records import Record
from common.study_jobs import Job
from selfrepair.errors import InputError
from selfrepair.files.integrity import Fault
from selfrepair.files.storage import read_json, sidecar
from selfrepair.study.config import config_value
from selfrepair.study.sizes import config_of_model


def of_other_settings(
    jobs: Iterable[Job], records: Mapping[str, Record], *, remedy: str
) -> Iterator[Fault]:
    """The outputs whose job declares other values than it had when they were made: as Snakemake noted, or, for
    tensors that it has no record of, as their sidecar says."""
    for job in jobs:
        for path in job.outputs.values():
            if not Path(path).is_file():
                continue
            made = records[path].settings if path in records else _stated(Path(path), job)
            for key in sorted(made.keys() & job.settings.keys()):
                if made[key] != job.settings[key]:
                    what = f"made with {key.replace('{model}', job.model or '')}: {_short(made[key])}, now {_short(job.settings[key])}"
                    yield Fault(Path(path), what, remedy)
                    break


def _stated(path: Path, job: Job) -> dict[str, Any]:
    """The values of a job's keys in the config that the sidecar of its tensors holds."""
    if path.suffix != ".safetensors" or job.model is None:
        return {}
    try:
        config = config_of_model(read_json(sidecar(path))["config"], job.model)
    except (InputError, KeyError, TypeError):
        return {}
    found = {key: config_value(config, key.replace("{model}", job.model)) for key in job.settings}
    return {key: value for key, value in found.items() if value is not None}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
