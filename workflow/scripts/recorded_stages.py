"""Print the DVC stages of a recorded study, or of one of its models: `recorded_stages.py FILE [MODEL]`.

Without a file nothing, which DVC takes for everything.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from common.dvc_stages import RECORDS_STAGE
from common.recorded import DEFAULT, RECORDED
from selfrepair.errors import InputError
from selfrepair.study.schema import read_yaml

ROOT = Path(__file__).parents[2]


def stages_of(file: str, model: str | None) -> list[str]:
    """The stages of a study, or of a model of it with the documents that it reads.

    Raises:
        InputError: the study is not recorded, or not of this model.
    """
    if file not in RECORDED:
        raise InputError(f"{file}: is not recorded; recorded are {', '.join(RECORDED)}")
    study = "" if file == DEFAULT else str(read_yaml(ROOT / file)["study"])
    names = list(_names(read_yaml(ROOT / "dvc.yaml")["stages"], study))
    if model is None:
        return names
    own = [name for name in names if name.endswith(f"@{model}")]
    if not own:
        models = dict.fromkeys(name.partition("@")[2] for name in names if "@" in name)
        raise InputError(f"{file}: {model} is not recorded of it; recorded are {', '.join(models)}")
    return [*(name for name in names if name.endswith("documents")), *own]


def _names(stages: Mapping[str, Any], study: str) -> Iterable[str]:
    """Names of all stages of a study; phases have no hyphen in their name."""
    for name, stage in stages.items():
        if name != RECORDS_STAGE and name.rpartition("-")[0] == study:
            yield from [f"{name}@{model}" for model in stage.get("foreach", ())] or [name]


if __name__ == "__main__":
    file, model, *_ = [*sys.argv[1:], None, None]
    try:
        print(*(stages_of(Path(file).as_posix(), model) if file else []))
    except InputError as error:
        sys.exit(f"error: {error}")
