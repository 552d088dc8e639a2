"""Write dvc.yaml and .dvcignore for the recorded studies: `make dvc-stages`; `--check` compares only.

To be run after a rule, an import, the catalogue, a config's models or the list of studies
(common/recorded.py) have changed.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from common.dvc_ignore import dvc_ignore
from common.dvc_stages import MATERIALS, Recorded, dvc_yaml, records_kept
from common.recorded import RECORDED
from common.study_jobs import jobs_of_study
from selfrepair.errors import InputError
from selfrepair.study.materials import read_materials
from selfrepair.study.schema import read_schema, read_yaml

ROOT = Path(__file__).parents[2]


def main() -> None:
    materials = read_materials(ROOT / MATERIALS, read_schema(ROOT / "config/schema.yaml"))
    studies = [recorded(file, models) for file, models in RECORDED.items()]
    wanted = {
        ROOT / "dvc.yaml": dvc_yaml(studies, materials),
        ROOT / ".dvcignore": dvc_ignore(records_kept(studies)),
    }
    for path, text in wanted.items():
        if "--check" in sys.argv and path.read_text(encoding="utf-8") != text:
            sys.exit(f"error: {path.name}: out of date; run make dvc-stages")
        path.write_text(text, encoding="utf-8")


def recorded(file: str, models: Sequence[str] | None) -> Recorded:
    """InputError if a model to be recorded is none of the study's."""
    config = read_yaml(ROOT / file)
    for model in models or ():
        if model not in config["models"]:
            raise InputError(f"{file}: recorded is {model}, which is not a key of models")
    return Recorded(file, config, jobs_of_study(ROOT, ROOT / file), models)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
