"""Print what a study would cost: `plan.py config/config.yaml`. A dry run prints the same."""

import sys
from pathlib import Path

import yaml

from selfrepair.errors import InputError
from selfrepair.planning import plan_table
from selfrepair.study import complete_config

try:
    schema = yaml.safe_load(Path("config/schema.yaml").read_text(encoding="utf-8"))
    content = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(plan_table(complete_config(content, schema)))
except (InputError, OSError, yaml.YAMLError) as error:
    sys.exit(f"error: {sys.argv[1]}: {' '.join(str(error).split())}")
