"""Write dvc.yaml and .dvcignore for the default study: `make dvc-stages`; `--check` compares only.

To be run after a rule, an import, the catalogue or the models of the config have changed.
"""

import sys
from pathlib import Path

from common.dvc_ignore import dvc_ignore
from common.dvc_stages import CONFIG, MATERIALS, dvc_yaml
from common.study_jobs import jobs_of_study
from selfrepair.errors import InputError
from selfrepair.study.materials import read_materials
from selfrepair.study.schema import read_schema, read_yaml

ROOT = Path(__file__).parents[2]


def main() -> None:
    config = read_yaml(ROOT / CONFIG)
    materials = read_materials(ROOT / MATERIALS, read_schema(ROOT / "config/schema.yaml"))
    study = jobs_of_study(ROOT, ROOT / CONFIG)
    wanted = {
        ROOT / "dvc.yaml": dvc_yaml(study, config, materials),
        ROOT / ".dvcignore": dvc_ignore(config["study"]),
    }
    for path, text in wanted.items():
        if "--check" in sys.argv and path.read_text(encoding="utf-8") != text:
            sys.exit(f"error: {path.name}: out of date; run make dvc-stages")
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
