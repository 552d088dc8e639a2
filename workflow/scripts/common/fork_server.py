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
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

# Not polars, which starts threads. Transformers' heavy half comes with any of its layers.
LIBRARIES = ("numpy", "torch", "transformers.modeling_layers", "safetensors.torch", "altair")
# A run of fewer jobs ends before the server has paid for itself.
FEW_JOBS = 4
CLIENT = Path(__file__).with_name("fork_client.py")
PDEATHSIG = 1


def can_serve() -> bool:
    """Whether jobs of this machine may be forks: a process that has been forked cannot use a GPU whose driver was
    asked for anything before, and macOS forbids its own libraries to forks."""
    return (
        sys.platform == "linux"
        and not any(Path("/dev").glob("nvidia*"))
        and not Path("/dev/kfd").exists()
    )


def start_server() -> str:
    """The start of a command line (`{it} python script.py`) of jobs that a new server runs.

    The server ends with this process. Its address is abstract, so that no path is too long for it, and both sides
    ask for the other's user.
    """
    name = f"selfrepair-{secrets.token_hex(16)}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{name}")
        listening.listen(128)
        # The other end is never closed here: the server sees it close when this process has ended.
        ends, _ = os.pipe()
        subprocess.Popen(
            [sys.executable, __file__, str(listening.fileno()), str(ends)],
            stdin=subprocess.DEVNULL,  # the run's lock is for jobs, which get it from their clients
            pass_fds=(listening.fileno(), ends),
            # Pools of threads that a library starts as it is imported do not survive a fork.
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        os.close(ends)
    return shlex.join([sys.executable, "-I", "-S", str(CLIENT), name])


def import_libraries() -> None:
    """Import what jobs need, as `adapter` would have it imported.

    Raises:
        ImportError, MemoryError, OSError: of a library.
        RuntimeError: a thread is at work, which a fork would not have.
    """
    os.close(os.pidfd_open(os.getpid()))  # not in every kernel and container
    sys.path.insert(0, str(Path(__file__).parents[1]))
    importlib.import_module("common.adapter")  # sets what the libraries read when they are imported
    for library in LIBRARIES:
        importlib.import_module(library)
    for module in list(sys.modules):
        if module.partition(".")[0] in ("common", "selfrepair", __name__):
            del sys.modules[module]
    del sys.path[0]
    if len(os.listdir("/proc/self/task")) > 1 or threading.active_count() > 1:
        raise RuntimeError("a library has started a thread")


def serve(listening: socket.socket, ends: int) -> dict[str, Any] | None:
    """Fork for every client until the run has ended; in the process of a job, what its client asks for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's; jobs get it themselves
    gc.freeze()
    while True:
        ready, _, _ = select.select([listening, ends], [], [])
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if ends in ready:
            return None
        client, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            os.close(ends)
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
    except OSError:
        return None
    if len(files) < 3:  # it waits no longer
        return None
    while not message.endswith(b"\n"):
        more = client.recv(65536)
        if not more:
            return None
        message += more
    keeper, job = os.getpid(), os.fork()
    if job == 0:
        ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(1)
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


def peer(connection: socket.socket) -> int:
    """The user at the other end."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder)


def become(job: dict[str, Any]) -> str:
    """Make this process the one that its client would have been; the script's path."""
    for number, file in enumerate(job["files"]):
        os.dup2(file, number)
        os.close(file)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    script = str(job["script"])
    sys.argv[:] = [script]
    sys.path.insert(0, str(Path(script).parent))
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit():  # read by the library when it was imported
        sys.modules["torch"].set_num_threads(int(threads))
    return script


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
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status & 0xFF)


def main() -> None:
    del sys.path[0]  # this file's folder: its names are no libraries
    with socket.socket(fileno=int(sys.argv[1])) as listening:
        try:
            import_libraries()
        except Exception:  # clients run their scripts themselves
            return
        job = serve(listening, int(sys.argv[2]))
    if job:
        run_here(become(job))


if __name__ == "__main__":
    import fork_server  # under its own name: the script of a job takes the place of this module

    fork_server.main()
