"""The tiny study through SLURM: real jobs of a real controller, the results of a local run.

`make test-cluster` runs these.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from checkouts import Checkout, new_checkout
from servers import free_port, needs, server

pytestmark = pytest.mark.cluster

# As docs/cluster.md says, for a small cluster; asked often, because these jobs are short.
PROFILE = ["--workflow-profile", "profiles/slurm", "--jobs", "2"]
PROFILE += ["--default-resources", "slurm_partition=main", "mem_mb=2000", "runtime=10"]
PROFILE += ["--slurm-init-seconds-before-status-checks", "2"]

# How many jobs of the tiny study each rule makes that does not run where Snakemake does.
JOBS = {
    "clean_pass": 2,
    "ablate_resample": 2,
    "ablate_zero": 1,
    "ablate_chosen": 2,
    "measure_neurons": 2,
    "measure_iterative": 2,
    "decompose": 1,
    "map_repair": 1,
    "tabulate_tokens": 1,
    "tabulate_neurons": 1,
    "tabulate_iterative": 1,
}
TABLES = {
    *("decompose", "map_repair"),
    *("tabulate_tokens", "tabulate_neurons", "tabulate_iterative"),
}


def results(checkout: Checkout, pattern: str) -> dict[str, Path]:
    folder = checkout.folder / "results/tiny"
    found = {str(path.relative_to(folder)): path for path in folder.rglob(pattern)}
    assert found
    return found


def with_resources(config: dict, **resources: int) -> dict:
    """The config with this stated for jobs that run the model."""
    return config | {"models": {"gpt2": config["models"]["gpt2"] | {"resources": resources}}}


@pytest.fixture(scope="module")
def scattered(tiny_config: dict) -> dict:
    """The study, its experiments in two shards as well."""
    return tiny_config | {"experiments": tiny_config["experiments"] | {"prompts_per_shard": 10}}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, scattered: dict) -> Checkout:
    """The study, run on this machine with one thread per job."""
    checkout = Checkout(new_checkout(tmp_path_factory.mktemp("here") / "repo"), scattered)
    done = checkout.run("--cores", "2", "--max-threads", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    return checkout


@pytest.fixture(scope="module")
def submitted(cluster, tmp_path_factory: pytest.TempPathFactory, scattered: dict) -> Checkout:
    """The study, run through SLURM with one thread per job; do not change it."""
    checkout = Checkout(
        new_checkout(tmp_path_factory.mktemp("slurm") / "repo"),
        with_resources(scattered, gpu=0, mem_mb=1500, runtime=7),
    )
    done = checkout.run(*PROFILE, "--max-threads", "1", **cluster.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Claims: results/tiny/claims.html" in done.stderr
    return checkout


@pytest.fixture
def copy_of_submitted(submitted: Checkout, tmp_path: Path) -> Checkout:
    return submitted.copy(tmp_path / "repo")


def test_results_are_those_of_a_local_run_bit_for_bit(here, submitted):
    for pattern in ("*.safetensors", "*.parquet", "claims.json", "headline.json"):
        local, remote = results(here, pattern), results(submitted, pattern)
        assert local.keys() == remote.keys()
        for name, path in local.items():
            if path.suffix == ".parquet":
                assert pl.read_parquet(path).equals(pl.read_parquet(remote[name])), name
            else:
                assert path.read_bytes() == remote[name].read_bytes(), name


def test_every_shard_was_a_job_and_no_light_rule_was(cluster, submitted):
    jobs = cluster.jobs(submitted.folder)
    assert {job.state for job in jobs} == {"COMPLETED"}
    assert Counter(job.rule for job in jobs) == JOBS
    for job in jobs:
        assert job.value("NumCPUs") == "1"
        light = (
            job.rule in TABLES
        )  # of these the profile says it, of jobs that run a model the config
        assert job.value("MinMemoryNode") == ("2000M" if light else "1500M")
        assert job.value("TimeLimit") == ("00:10:00" if light else "00:07:00")
        assert job.value("TresPerJob") is None


def test_a_gpu_and_threads_become_an_allocation(cluster, copy_of_submitted, tmp_path):
    """`device: auto` where nvidia-smi is: one GPU for each job that runs a model."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    environment = cluster.environment
    environment["PATH"] = f"{tool.parent}{os.pathsep}{environment['PATH']}"
    shard = "results/tiny/gpt2/sweeps/zero/shard-0of1.safetensors"
    before = load_file(copy_of_submitted.folder / shard)
    rules = ["clean_pass", "clean_pass", "ablate_zero"]
    arguments = [shard, "--forcerun", *rules[1:], *PROFILE, "--max-threads", "2"]
    config = with_resources(copy_of_submitted.config, mem_mb=1500, runtime=7)
    done = copy_of_submitted.run(*arguments, config=config, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = cluster.jobs(copy_of_submitted.folder)
    assert [job.rule for job in jobs] == rules
    for job in jobs:
        assert job.value("TresPerJob") == "gres:gpu:1"  # asked for
        assert job.value("JOB_GRES") == "gpu:1"  # given
        assert job.value("NumCPUs") == "2"
    sidecar = (copy_of_submitted.folder / shard).with_suffix(".json")
    assert json.loads(sidecar.read_text())["threads"] == 2
    after = load_file(copy_of_submitted.folder / shard)
    assert after.keys() == before.keys()
    for name, values in after.items():
        assert torch.allclose(values, before[name], atol=1e-5, equal_nan=True), name


def test_a_failed_job_is_tried_twice_told_in_one_line_and_resumed(cluster, copy_of_submitted):
    folder = copy_of_submitted.folder / "results/tiny/gpt2"
    target = "results/tiny/gpt2/sweeps/zero/shard-0of1.safetensors"
    clean, shard = folder / "clean.safetensors", copy_of_submitted.folder / target
    good, expected = clean.read_bytes(), shard.read_bytes()
    clean.write_bytes(good[:-8] + b"\x00" * 8)
    shard.unlink()
    arguments = [target, *PROFILE, "--max-threads", "1"]
    done = copy_of_submitted.run(*arguments, **cluster.environment)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: results/tiny/gpt2/clean.safetensors: content"), done.stderr
    assert not shard.exists()
    clean.write_bytes(good)
    done = copy_of_submitted.run(*arguments, **cluster.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert shard.read_bytes() == expected
    jobs = cluster.jobs(copy_of_submitted.folder)
    assert [(job.rule, job.state) for job in jobs] == [
        ("ablate_zero", "FAILED"),
        ("ablate_zero", "FAILED"),
        ("ablate_zero", "COMPLETED"),
    ]


def test_a_bucket_does_for_jobs_that_share_no_files(cluster, here, tmp_path, scattered):
    """The storage of profiles/kubernetes: each job gets from S3 just the files that its rule names."""
    needs(modules=("boto3", "moto", "flask", "snakemake_executor_plugin_kubernetes"))
    import boto3

    checkout = Checkout(new_checkout(tmp_path / "repo"), scattered)
    port = free_port()
    address, secret = f"http://127.0.0.1:{port}", "secret"
    bucket = boto3.resource(
        "s3",
        endpoint_url=address,
        aws_access_key_id="key",
        aws_secret_access_key=secret,
        region_name="us-east-1",
    ).Bucket("lab")
    names = ("heads", "tokens", "neuron_ranks", "self_repression")
    tables = [f"results/tiny/gpt2/{name}.parquet" for name in names]
    arguments = ["--workflow-profile", "profiles/kubernetes", "--executor", "slurm"]
    arguments += [
        *PROFILE[2:],
        "--slurm-status-command",
        "squeue",
        "--max-threads",
        "1",
        "--latency-wait",
        "5",
    ]
    arguments += ["--default-storage-prefix", "s3://lab/study"]
    arguments += ["--shared-fs-usage", "persistence", "software-deployment", "sources"]
    arguments += ["--remote-job-local-storage-prefix", f"{tmp_path}/node/$SLURM_JOB_ID"]
    environment = cluster.environment | {
        "SNAKEMAKE_STORAGE_S3_ENDPOINT_URL": address,
        "SNAKEMAKE_STORAGE_S3_ACCESS_KEY": "key",
        "SNAKEMAKE_STORAGE_S3_SECRET_KEY": secret,
    }
    with server([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port):
        bucket.create()
        done = checkout.run(*tables, *arguments, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        for table in tables:
            copy = tmp_path / Path(table).name
            bucket.download_file(f"study/{table}", str(copy))
            assert pl.read_parquet(copy).equals(pl.read_parquet(here.folder / table)), table
    assert not (checkout.folder / "results").exists()
    jobs = cluster.jobs(checkout.folder)
    assert Counter(job.rule for job in jobs) == JOBS
