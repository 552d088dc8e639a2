"""How many examples hypothesis tries: a few that are the same each time, or EXAMPLES new ones.

SHRINK=0: a failing example is shown as it was drawn, which is all that mutation testing asks for.
"""

import os

from hypothesis import HealthCheck, Phase, settings

EXAMPLES = os.environ.get("EXAMPLES")
TRIED = (Phase.explicit, Phase.generate)

settings.register_profile(
    "selfrepair",
    max_examples=int(EXAMPLES or 3),
    derandomize=EXAMPLES is None,
    phases=TRIED if os.environ.get("SHRINK") == "0" else (*TRIED, Phase.shrink),
    # Models take a while to build, on a busy machine more so.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    database=None,
    print_blob=True,
)
settings.load_profile("selfrepair")
