"""A job's script runs in a fork as it would by itself, and never outlives what has started it."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from checkouts import ROOT

SCRIPTS = ROOT / "workflow/scripts"

# Tells the start of a job's command line and waits for its own end.
RUN = """
import sys
sys.path.insert(0, {scripts!r})
from common import fork_server
print(fork_server.start_server(), flush=True)
sys.stdin.read()
"""

pytestmark = pytest.mark.slow


class Run:
    """A process that has started a server."""

    def __init__(self, **environment: str) -> None:
        code = RUN.format(scripts=str(SCRIPTS))
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT / "workflow")} | environment,
        )
        assert self.process.stdout
        self.client = self.process.stdout.readline().split()
        (self.server,) = psutil.Process(self.process.pid).children()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        psutil.wait_procs([self.server], timeout=60)
        assert not self.server.is_running()


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    started = Run()
    yield started
    started.end()


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], list[str]]:
    """The command of a script with this code."""

    def written(code: str) -> list[str]:
        path = tmp_path / "folder of a script" / "script.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
        return [sys.executable, str(path)]

    return written


def ended(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload,no-any-return]


def same(run: Run, command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """What a script has told in a fork, after it has told the same by itself."""
    alone, forked = ended(command, **options), ended([*run.client, *command], **options)
    assert (forked.returncode, forked.stdout) == (alone.returncode, alone.stdout)
    return forked


def is_forked(told: str) -> bool:
    return told.strip().endswith("torch is there")


TELL = """
import json, os, signal, sys, threading
ahead = "torch is there" if "torch" in sys.modules else "nothing is there"
own = [name for name in sys.modules if name.split(".")[0] in ("common", "selfrepair")]
print(json.dumps({
    "folder": os.getcwd(), "argv": sys.argv, "path": sys.path, "file": __file__, "name": __name__,
    "main": sys.modules["__main__"].__file__, "environment": dict(os.environ), "umask": os.umask(0o22),
    "stdin": sys.stdin.read(), "own": own, "signals": [str(signal.getsignal(n)) for n in (2, 15, 17)],
    "threads": threading.active_count(),
}))
print(ahead, file=sys.stderr)
"""


def test_a_fork_sees_what_a_process_of_its_own_sees(run, script, tmp_path):
    environment = os.environ | {"GIVEN": "naïve \udce9", "OMP_NUM_THREADS": "2", "LC_ALL": "C"}
    environment["PYTHONPATH"] = str(ROOT / "workflow")  # as the server's
    told = same(run, script(TELL), cwd=tmp_path, env=environment, input="from the pipe")
    assert is_forked(told.stderr)
    seen = json.loads(told.stdout)
    assert seen["stdin"] == "from the pipe"
    assert seen["own"] == []
    assert seen["environment"]["GIVEN"] == "naïve \udce9"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("import sys; print('done'); sys.exit(0)", 0),
        ("import sys; print('done'); sys.exit(3)", 3),
        ("import sys; sys.exit('a line')", 1),
        ("import sys; sys.exit()", 0),
        ("raise ValueError('what went wrong')", 1),
        ("this is no Python", 1),
        ("import os; os._exit(7)", 7),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -15),
        ("import atexit; atexit.register(print, 'at the end')", 0),
        (
            "import threading, time\n"
            "threading.Thread(target=lambda: (time.sleep(0.2), print('of a thread'))).start()",
            0,
        ),
    ],
)
def test_a_fork_ends_as_a_process_of_its_own_does(run, script, code, status):
    told = same(run, script(code))
    assert told.returncode == status
    for word in ("what went wrong", "a line", "SyntaxError"):
        assert (word in told.stderr) == (
            word in code or (word == "SyntaxError" and "no Py" in code)
        )


def test_torch_has_the_threads_that_the_environment_gives(run, script):
    tell = script("import torch; print(torch.get_num_threads())")
    for threads in ("1", "2"):
        told = same(run, tell, env=os.environ | {"OMP_NUM_THREADS": threads})
        assert told.stdout.strip() == threads


def test_our_own_code_is_read_when_the_job_starts(run, script):
    tell = script("import selfrepair; print(selfrepair.WORD)")
    module = Path(tell[1]).parent / "selfrepair" / "__init__.py"
    module.parent.mkdir()
    for word in ("before", "after"):
        module.write_text(f"WORD = {word!r}")
        told = ended([*run.client, *tell])
        assert told.stdout.strip() == word


def test_other_commands_run_as_they_are(run):
    assert ended([*run.client, "echo", "two", "words"]).stdout == "two words\n"
    assert ended([*run.client, sys.executable, "-c", "print(1)"]).stdout == "1\n"


SLEEP = """
import os, sys, time
print(os.getpid(), "torch" in sys.modules, flush=True)
time.sleep(600)
"""


def started(command: list[str]) -> tuple[subprocess.Popen[str], psutil.Process]:
    """A client, and the process of its job, which sleeps."""
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert client.stdout
    number, forked = client.stdout.readline().split()
    assert forked == "True"
    return client, psutil.Process(int(number))


def has_ended(process: psutil.Process) -> bool:
    for _ in range(600):
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.1)
                continue
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_client_takes_its_job_along(run, script, number):
    client, job = started([*run.client, *script(SLEEP)])
    client.send_signal(number)
    assert client.wait(60) == -number
    assert has_ended(job)


def test_a_killed_keeper_takes_its_job_along(run, script):
    client, job = started([*run.client, *script(SLEEP)])
    job.parent().kill()
    assert client.wait(60) == 1
    assert has_ended(job)


def test_a_killed_job_ends_its_client(run, script):
    client, job = started([*run.client, *script(SLEEP)])
    job.kill()
    assert client.wait(60) == -signal.SIGKILL


def test_without_a_server_a_script_runs_by_itself(script):
    gone = Run()
    client, job = started([*gone.client, *script(SLEEP)])
    gone.end()
    time.sleep(1)
    assert job.is_running()  # its own client is alive
    client.kill()
    assert has_ended(job)
    told = ended([*gone.client, *script(TELL)], input="")
    assert told.returncode == 0
    assert not is_forked(told.stderr)


# In the place of the libraries, so that a server starts at once.
STANDS_IN = {
    "numpy": "class random:\n    seed = staticmethod(lambda: None)",
    "torch": "def seed(): pass\ndef set_num_threads(number): pass",
    "transformers": "",
    "transformers.modeling_layers": "",
    "safetensors": "",
    "safetensors.torch": "",
    "altair": "",
}


def run_of(folder: Path, **changes: str) -> Run:
    """A run whose server imports these in the place of the libraries."""
    for name, code in (STANDS_IN | changes).items():
        path = folder.joinpath(*name.split("."))
        is_package = any(other.startswith(f"{name}.") for other in STANDS_IN)
        path = path / "__init__.py" if is_package else path.with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    return Run(PYTHONPATH=os.pathsep.join([str(folder), str(ROOT / "workflow")]))


@pytest.mark.parametrize(
    ("numpy", "serves"),
    [
        (STANDS_IN["numpy"], True),
        ("raise MemoryError", False),
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
            False,
        ),
    ],
    ids=["all is well", "a library cannot be imported", "a library starts a thread"],
)
def test_a_server_serves_if_its_libraries_can_be_forked(script, tmp_path, numpy, serves):
    run = run_of(tmp_path, numpy=numpy)
    told = ended([*run.client, *script("import sys; print('altair' in sys.modules)")])
    assert (told.returncode, told.stdout) == (0, f"{serves}\n")
    run.end()


def test_a_run_that_ends_while_its_server_imports_takes_it_along(tmp_path):
    run = run_of(tmp_path, numpy="import time; time.sleep(60)")
    assert run.server.is_running()
    run.end()


def test_an_interrupted_job_cleans_up_before_its_client_ends(run, script, tmp_path):
    code = f"""
import sys, time
print("torch" in sys.modules, flush=True)
try:
    time.sleep(600)
finally:
    time.sleep(1)
    open({str(tmp_path / "cleaned")!r}, "w").close()
"""
    with subprocess.Popen(
        [*run.client, *script(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        process_group=0,
    ) as client:
        assert client.stdout
        assert client.stdout.readline() == "True\n"
        (keeper,) = [p for p in run.server.children() if p.children()]
        # The terminal's Ctrl-C reaches all of the group; the job is in that of its server.
        for process in (psutil.Process(client.pid), *keeper.children()):
            process.send_signal(signal.SIGINT)
        assert client.wait(60) == 1
    assert (tmp_path / "cleaned").exists()


def test_who_ignores_interrupts_has_jobs_that_do(script, tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run = run_of(tmp_path)
        tell = script("import signal; print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)")
        assert same(run, tell).stdout == "True\n"
        run.end()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_file_that_is_left_open_is_written(run, script, tmp_path):
    path = tmp_path / "left open"
    same(run, script(f"file = open({str(path)!r}, 'w'); file.write('all of it')"))
    assert path.read_text() == "all of it"


def test_products_of_numpy_are_the_same_bits(run, script):
    code = """
import hashlib
import numpy as np
a = np.random.default_rng(0).normal(size=(300, 3000))
print(hashlib.sha256((a @ a.T).tobytes()).hexdigest())
"""
    # On some processors the number of threads changes no bit, and this shows nothing.
    for threads in ("1", "2"):
        variables = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), threads)
        assert same(run, script(code), env=os.environ | variables).returncode == 0


def test_two_jobs_draw_differently_and_use_the_folder_they_are_told(run, script, tmp_path):
    code = "import numpy, tempfile, torch; print(torch.rand(1), numpy.random.rand(), tempfile.gettempdir())"
    told = [
        ended(
            [*run.client, *script(code)], env=os.environ | {"TMPDIR": str(tmp_path)}
        ).stdout.split()
        for _ in range(2)
    ]
    assert told[0][-1] == told[1][-1] == str(tmp_path)
    assert told[0][:-2] != told[1][:-2]
    assert told[0][-2] != told[1][-2]


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_without_one_of_its_files_a_script_runs_by_itself(run, script, closed):
    command = shlex.join([*run.client, *script("import os; os._exit(5)")])
    assert subprocess.run(["bash", "-c", f"{command} {closed}>&-"], timeout=60).returncode == 5


def test_rules_start_scripts_and_nothing_that_a_prefix_would_break():
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        other = re.findall(r"^\s+(shell|container|benchmark):", path.read_text(), re.M)
        assert not other, path


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user_is_not_served(run, script, tmp_path):
    ask = f"""
import os, sys
sys.path.insert(0, {str(SCRIPTS)!r})
from common import fork_client
fork_client.peer = lambda _: os.getuid()  # the server must refuse by itself
os.setuid({{user}})
print(fork_client.status_of({run.client[-1]!r}, {script("print('served')")[1]!r}), flush=True)
"""
    for user, told in ((0, "served\n0\n"), (65534, "None\n")):
        assert ended([sys.executable, "-c", ask.format(user=user)]).stdout == told
