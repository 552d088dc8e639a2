"""Jobs that start at once: a server of a run imports the large libraries, and each job is a fork of it.

What a script imports (torch, transformers, altair) takes seconds, a short job's own work less. Snakemake starts
`fork_client.py NAME python script.py` for a job; the server forks a keeper, and this forks the process that runs the
script, with the client's files, environment and folder. Only libraries are imported ahead, never our own code: a
script runs as it stands when its job starts. A client that is killed takes its job along, and whatever keeps the server
from serving (too little memory, a thread that a library has started), the client runs the script by itself.
"""

import atexit
import builtins
import ctypes
import gc
import importlib
import json
import os
import secrets
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from common.fork_client import peer

# Not polars, which starts threads. Transformers' heavy half comes with any of its layers.
LIBRARIES = ("numpy", "torch", "transformers.modeling_layers", "safetensors.torch", "altair")
# A run of fewer jobs ends before the server has paid for itself.
FEW_JOBS = 4
# `always` for however few jobs, `never` for none.
SWITCH = "SELFREPAIR_FORKS"
CLIENT = Path(__file__).with_name("fork_client.py")
# The server's own code: not this file, because the script of a job takes the place of what Python runs.
SERVER = f"import sys; sys.path[0] = {str(Path(__file__).parents[1])!r}; from common.fork_server import main; main()"
# Of GPUs: NVIDIA's, also on small boards and under Windows, AMD's.
GPUS = ("nvidia*", "nvhost*", "nvmap", "dxg", "kfd")
SET_DEATH_SIGNAL, SET_NAME = 1, 15  # of prctl(2)


def is_worth_it(jobs: int) -> bool:
    """Whether a run of so many jobs is to start a server."""
    asked = os.environ.get(SWITCH)
    return can_serve() and asked != "never" and (asked == "always" or jobs >= FEW_JOBS)


def can_serve() -> bool:
    """Whether jobs of this machine may be forks: a process that has been forked cannot use a GPU whose driver was
    asked for anything before, and macOS forbids its own libraries to forks."""
    return sys.platform == "linux" and not any(any(Path("/dev").glob(name)) for name in GPUS)


def start_server() -> str:
    """The start of a command line (`{it} python script.py`) of jobs that a new server runs.

    The server ends with the thread that has called this. Its address is abstract, so that no path is too long for
    it, and both sides ask for the other's user.

    Raises:
        OSError: there is no memory for it, or no such socket.
    """
    name = f"selfrepair-{secrets.token_hex(16)}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{name}")
        listening.listen(128)
        subprocess.Popen(
            [sys.executable, "-c", SERVER, str(listening.fileno()), str(os.getpid())],
            stdin=subprocess.DEVNULL,  # the run's lock is for jobs, which get it from their clients
            pass_fds=(listening.fileno(),),
            # Pools of threads that a library starts as it is imported do not survive a fork.
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
    return shlex.join([sys.executable, "-I", "-S", str(CLIENT), name])


def import_libraries() -> None:
    """Import what jobs need, as `adapter` would have it imported.

    Raises:
        ImportError, MemoryError, OSError: of a library.
        RuntimeError: a thread is at work, which a fork would not have.
    """
    os.close(os.pidfd_open(os.getpid()))  # not in every kernel and container
    importlib.import_module("common.adapter")  # sets what the libraries read when they are imported
    for library in LIBRARIES:
        importlib.import_module(library)
    for module in list(sys.modules):
        if module.partition(".")[0] in ("common", "selfrepair"):
            del sys.modules[module]
    del sys.path[0]  # our scripts, in whose place comes the folder of a job's script
    sys.stdout.flush()
    if len(os.listdir("/proc/self/task")) > 1 or threading.active_count() > 1:
        raise RuntimeError("a library has started a thread")


def serve(listening: socket.socket) -> dict[str, Any]:
    """Fork for every client; returns in the process of a job alone, with what its client asks for."""
    gc.freeze()
    while True:
        client, _ = listening.accept()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        try:
            keeper = os.fork()
        except OSError:  # no memory for it: the client, told nothing, runs the script itself
            client.close()
            continue
        if keeper == 0:
            listening.close()
            job = keep(client)
            if job is None:
                os._exit(0)
            return job
        client.close()


def keep(client: socket.socket) -> dict[str, Any] | None:
    """Fork the process of a client's job and tell the client its status; in that process, the job."""
    if peer(client) != os.getuid():
        return None
    try:
        client.sendall(b"ready\n")
        message, files, _, _ = socket.recv_fds(client, 65536, 3)
        while len(files) == 3 and not message.endswith(b"\n"):
            more = client.recv(65536)
            if not more:
                return None
            message += more
    except OSError:
        return None
    if len(files) < 3:  # it waits no longer
        return None
    keeper = os.getpid()
    try:
        job = os.fork()
    except OSError:
        client.sendall(b"none\n")
        return None
    if job == 0:
        end_with(keeper)
        client.close()
        return {**json.loads(message), "files": files}
    for file in files:
        os.close(file)
    ended = os.pidfd_open(job)
    ready, _, _ = select.select([client, ended], [], [])
    if ended not in ready:  # the client was killed: it has nothing more to say
        os.kill(job, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(job, 0)[1])
    with suppress(OSError):
        client.sendall(f"{status}\n".encode())
    return None


def end_with(parent: int) -> None:
    """Have this process killed when its parent ends, or now if that has ended."""
    ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def become(job: dict[str, Any], interrupted: Any) -> str:
    """Make this process the one that its client would have been; the script's path.

    interrupted: what the run does on Ctrl-C, which its jobs get as well.
    """
    signal.signal(signal.SIGINT, interrupted)
    for number, file in enumerate(job["files"]):
        os.dup2(file, number)
        os.close(file)
    os.chdir(job["folder"].encode("latin-1"))
    os.environ.clear()
    for name, value in job["environment"].items():
        os.environb[name.encode("latin-1")] = value.encode("latin-1")
    script = os.fsdecode(job["script"].encode("latin-1"))
    sys.argv[:] = [script]
    sys.path.insert(0, str(Path(script).parent))
    tempfile.tempdir = None  # as TMPDIR says
    torch, numpy = sys.modules["torch"], sys.modules["numpy"]
    torch.seed()  # none of two jobs draws what the other does
    numpy.random.seed()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit():  # read by the libraries when they were imported
        torch.set_num_threads(int(threads))
        set_blas_threads(int(threads))
    name = Path(script).name.partition(".")[2] or script  # Snakemake puts a random word in front
    ctypes.CDLL(None).prctl(SET_NAME, name.encode()[:15])
    return script


def set_blas_threads(threads: int) -> None:
    """Threads of the OpenBLAS that comes with numpy, whose results depend on them in the last bit."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    for path in {line.split(maxsplit=5)[-1] for line in maps if "openblas" in line}:
        library = ctypes.CDLL(path)
        for name in ("scipy_openblas_set_num_threads64_", "openblas_set_num_threads"):
            if hasattr(library, name):
                getattr(library, name)(threads)


def run_here(script: str) -> NoReturn:
    """Run a script as Python's command line does, and end the process.

    It does not take the libraries apart, as Python would at its end: that takes a fork a second or two, because
    every page that it touches is copied first.
    """
    main = sys.modules["__main__"].__dict__
    main.clear()
    main.update(dict.fromkeys(("__doc__", "__loader__", "__package__", "__spec__")))
    main.update({"__name__": "__main__", "__file__": script, "__builtins__": builtins})
    status = 0
    try:
        exec(compile(Path(script).read_bytes(), script, "exec"), main)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException as error:
        traceback.print_exception(error)
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    main.clear()  # closes the files that the script has left open
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status & 0xFF)


def main() -> None:
    interrupted = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's; jobs get it themselves
    end_with(int(sys.argv[2]))
    with socket.socket(fileno=int(sys.argv[1])) as listening:
        try:
            import_libraries()
        except Exception:  # clients run their scripts themselves
            os._exit(0)
        job = serve(listening)
    run_here(become(job, interrupted))
