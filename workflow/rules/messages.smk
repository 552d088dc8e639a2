# What comes before and after the jobs: records, and what is told on the screen: the plan in a dry run, what the study
# found, and what went wrong.
import atexit
import time
from contextlib import suppress

from common.ahead import forget_drawings, plan_drawings
from common.fork_server import is_worth_it, start_server
from common.one_run import hold, is_dry_run
from common.packed_records import unpack_records
from common.records import forget_failed
from selfrepair.study.planning import plan_table

STARTED = time.time()

# Snakemake compares with its records next, in a dry run too.
try:
    unpack_records(Path.cwd())
except InputError as error:
    sys.exit(f"error: {error}")

# Snakemake does not say whether this is a dry run before it has read the rules.
if is_dry_run(sys.argv):
    print(f"{plan_table(config)}\n", file=sys.stderr)


onstart:
    # Started by hand or by DVC; make has done so already.
    try:
        hold(Path.cwd())
    except InputError as error:
        sys.exit(f"error: {error}")
    jobs = list(workflow.dag.needrun_jobs())
    # For its limit of jobs a second, Snakemake (9.27) looks for jobs to start once more a second after every look,
    # so ever more often, and asks for the size of every input each time. Here jobs wait for a free core alone, and
    # it looks when one ends.
    if workflow.local_exec:
        workflow.scheduler.job_rate_limiter = None
        if is_worth_it(len(jobs)):
            with suppress(OSError):  # jobs then start by themselves
                client = start_server().replace("{", "{{").replace("}", "}}")
                # Behind bash's strict mode, which is Snakemake's own prefix.
                shell.prefix(f"set -euo pipefail; {client} ")
    if not workflow.storage_settings.default_storage_provider:
        plan_drawings(jobs, {f"draw_{figure.key}" for figure in FIGURES})


onsuccess:
    forget_drawings()
    findings, claims, page = (
        Path(RESULTS, "findings.md"),
        Path(RESULTS, "claims.html"),
        Path(PICTURES, "index.html"),
    )
    if findings.exists() and claims.exists():
        places = f"Claims: {claims}  Tables: {RESULTS}/  Figures: {PICTURES}/"
        if page.exists():
            places += f"  All on one page: {page}"
        # Below all that Snakemake still says.
        atexit.register(
            print, f"\n{findings.read_text()}\n{places}", file=sys.stderr
        )


onerror:
    forget_drawings()
    forget_failed(Path.cwd(), (f"{RESULTS}/", f"{PICTURES}/"), since=STARTED)
    # The last thing on the screen is what went wrong, in one line, not Snakemake's report of it.
    for path in sorted(
        Path(LOGS).rglob("*.log"), key=lambda log: log.stat().st_mtime
    ):
        if path.stat().st_mtime < STARTED:
            continue
        last = path.read_text(errors="replace").strip().splitlines()[-1:]
        if last and last[0].startswith("error: "):
            atexit.register(print, f"\n{last[0]}  [{path}]", file=sys.stderr)
