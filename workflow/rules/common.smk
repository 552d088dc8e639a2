# The checked config; names and paths that several rules share; what wildcards may be.
import re
import sys
from functools import cache
from pathlib import Path

from selfrepair import catalogue
from selfrepair.ablations import ABLATIONS as REGISTRY, MEANS
from selfrepair.errors import InputError
from selfrepair.other_ablations import ALL_HEADS
from selfrepair.study.config import (
    CLEAN,
    complete_config,
    config_value,
    mapped_ablations,
    n_shards,
)
from selfrepair.study.materials import read_materials
from selfrepair.study.planning import check_named_heads
from selfrepair.study.schema import read_schema
from selfrepair.study.sizes import config_of_model
from selfrepair.vocabulary import SAMPLED

# What rules share with scripts: the package `common`.
sys.path.insert(0, str(Path(workflow.basedir, "workflow/scripts")))


report: "../report/workflow.rst"


def checked_config():
    """The config with defaults; one line and exit status 1 if it is wrong."""
    folder = Path(workflow.basedir, "config")
    schema = read_schema(folder / "schema.yaml")
    try:
        materials = read_materials(folder / "materials.yaml", schema)
        complete = complete_config(config, schema, materials=materials)
        check_named_heads(complete)
    except InputError as error:
        sys.exit(
            f"error: {', '.join(map(str, workflow.configfiles)) or 'config'}: {error}"
        )
    return complete


config = checked_config()
STUDY = config["study"]
MODELS = list(config["models"])
ABLATIONS = list(config["ablations"])
# Those of which it is measured who repairs.
MAPPED = mapped_ablations(config)
# Whether sweeps leave heads out.
SOME_HEADS = config["sweep"]["heads"] != ALL_HEADS
# The ablation whose first shard is checked: the first that needs no mean over the sample, which the plain model lacks.
CHECKED = [name for name in ABLATIONS if MEANS not in REGISTRY[name].needs][:1]
EXPERIMENTS = {experiment.name: experiment for experiment in catalogue.EXPERIMENTS}
# The released tables of models whose heads are compared with the numbers that the authors released.
RELEASED = config.get("published", {}).get("tables", {})
FIGURES = [*catalogue.FIGURES, *([catalogue.PUBLISHED] if RELEASED else [])]

RESULTS = f"results/{STUDY}"
PICTURES = f"figures/{STUDY}"
LOGS = f"logs/{STUDY}"
FORMATS = config["figures"]["formats"]


wildcard_constraints:
    model="|".join(map(re.escape, MODELS)),
    ablation="|".join(map(re.escape, ABLATIONS)),
    experiment="|".join(map(re.escape, EXPERIMENTS)),
    shard=r"\d+",
    shards=r"\d+",


def draws_prompts(ablation):
    """Whether, for any model, prompts are drawn of each head, and not tokens alone."""
    return any(
        config_of_model(config, model)["ablations"][ablation]["prompts_per_head"]
        for model in MODELS
    )


def table(name):
    """The path of one of a model's tables."""
    return f"{RESULTS}/{{model}}/{name}.parquet"


def experiment_tables(experiment):
    """Named outputs of the rule that tabulates an experiment."""
    return {name: table(name) for name in EXPERIMENTS[experiment].tables}


def figure_stem(figure, model):
    """The path of a figure without its ending."""
    folder = PICTURES if figure.scope == "study" else f"{PICTURES}/{model}"
    return f"{folder}/{figure.key}-{figure.name}"


def title_of(model):
    """What a model is called in tables and figures."""
    return config["models"][model].get("title", model)


def figures_by_title():
    """The paths of each model's figures without their endings, as seen from the page of claims, which
    lies in results/<study>/: by the model's title and the figure's key."""
    return {
        title_of(model): {
            figure.key: f"../../{figure_stem(figure, model)}" for figure in FIGURES
        }
        for model in MODELS
    }


def shard_files(folder):
    """Named outputs of one shard: its tensors and the sidecar that vouches for them."""
    stem = f"{RESULTS}/{{model}}/{folder}/shard-{{shard}}of{{shards}}"
    return {"tensors": f"{stem}.safetensors", "provenance": f"{stem}.json"}


def shard_log(folder):
    return f"{LOGS}/{{model}}/{folder}/shard-{{shard}}of{{shards}}.log"


@cache
def config_of(model):
    """The config as it holds for a model, or for the study ("")."""
    return config_of_model(config, model) if model else config


def shard_paths(model, kind, measurement):
    """The tensors of every shard of a measurement; kind: clean, sweeps or experiments."""
    folder = f"{RESULTS}/{model}/{kind}"
    if measurement != CLEAN:
        folder = f"{folder}/{measurement}"
    count = n_shards(config_of(model), measurement)
    return [f"{folder}/shard-{shard}of{count}.safetensors" for shard in range(count)]


def shards_of_clean(wildcards):
    return shard_paths(wildcards.model, "clean", CLEAN)


def shards_of_sweep(wildcards):
    return shard_paths(wildcards.model, "sweeps", wildcards.ablation)


def shards_of_experiment(wildcards):
    return shard_paths(wildcards.model, "experiments", wildcards.experiment)
