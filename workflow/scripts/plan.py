"""Print what a study would cost: `plan.py config/config.yaml`. A dry run prints the same."""

from common.study_command import run
from selfrepair.study.planning import plan_table

run(lambda config: print(plan_table(config)))
