"""A SLURM cluster of one node on this machine, started and stopped by the tests."""

import os
import re
import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

import pytest

from servers import free_port, needs, program, running, server

# Jobs stay in the controller's memory (MinJobAge) for the tests to ask about. The node's GPU is an
# empty file: SLURM hands it out, nothing computes on it.
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=1,bf_interval=1
MinJobAge=3600
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 Gres=gpu:1
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass
class Job:
    """What the controller knows of a job."""

    rule: str
    state: str
    facts: str

    def value(self, key: str) -> str | None:
        found = re.search(rf"\b{key}=(\S+)", self.facts)
        return found[1] if found else None


@dataclass
class Cluster:
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Where SLURM's commands find this cluster."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def ask(self, *command: str) -> str:
        environment = os.environ | self.environment
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def jobs(self, folder: Path) -> list[Job]:
        """Jobs that were submitted from this folder, first to last."""
        lines = self.ask("scontrol", "show", "job", "--details", "--oneliner").splitlines()
        pattern = re.compile(r" JobState=(\S+) .* Comment=rule_(\S+?)(?:_wildcards_\S+)? ")
        found = []
        for line in lines:
            if f" WorkDir={folder} " in line and (match := pattern.search(line)):
                found.append(Job(rule=match[2], state=match[1], facts=line))
        return found


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    programs = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")
    needs(*programs, modules=("snakemake_executor_plugin_slurm",))
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    # In a job the plugin calls srun without SLURM_CONF, for clusters that need none.
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {program("srun")} "$@"\n')
    srun.chmod(0o755)
    key, gpu = folder / "munge.key", folder / "gpu0"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o600)
    gpu.touch()
    controller, node = free_port(), free_port()
    host = socket.gethostname().split(".")[0]
    settings = CONFIG.format(
        host=host, controller=controller, node=node, user=getuser(), folder=folder
    )
    (folder / "slurm.conf").write_text(settings)
    (folder / "gres.conf").write_text(f"Name=gpu File={gpu}\n")
    started = Cluster(folder)
    environment = os.environ | started.environment
    munge = [str(program("munged")), "--foreground", "--force"]
    munge += [
        f"--{name}={folder}/munge.{name.split('-')[0]}"
        for name in ("socket", "key-file", "pid-file", "log-file", "seed-file")
    ]
    with ExitStack() as servers:
        enter = servers.enter_context
        enter(running(munge, (folder / "munge.socket").exists))
        enter(server([str(program("slurmctld")), "-D"], controller, env=environment))
        enter(server([str(program("slurmd")), "-D"], node, env=environment))
        yield started
