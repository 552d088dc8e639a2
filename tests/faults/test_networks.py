"""Networks and servers at their worst, for real: each client against a server on this machine that misbehaves.

Tables of the paper's authors: `tests/unit/published/test_fetch.py`.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import faulty_server
from checkouts import ROOT, new_checkout, run_in
from faulty_server import (
    BUSY,
    CUT,
    HANG,
    HANG_LATER,
    MORE,
    RESET,
    UNAVAILABLE,
    WRONG,
    Faults,
    Files,
)
from hub_server import Hub, Repository
from hub_server import serve as serve_hub
from servers import needs
from tiny_models import save_tiny_model

COMMIT = "a" * 40
ALL = (HANG, HANG_LATER, CUT, MORE, WRONG, BUSY, UNAVAILABLE, RESET)

# Asks `ask()` for what each line of its input names a server and a folder for; prints the answer or the refusal.
PROGRAM = """
import json, os, sys
from pathlib import Path
import common.adapter
import common.downloads as downloads
from selfrepair.files import patience, hub_client
from selfrepair.errors import InputError
patience.FIRST_WAIT = 0.1
hub_client.SILENCE = 1.0
{ask}
for line in sys.stdin:
    address, folder = json.loads(line)
    try:
        told = str(ask(address, Path(folder)))
    except InputError as error:
        told = "refused: " + str(error)
    print(json.dumps(told), flush=True)
"""


class Client:
    """A process that asks servers, one after the other: importing the libraries takes seconds."""

    def __init__(self, ask: str, **environment: str) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        kept = {k: v for k, v in kept.items() if not k.startswith(("PIP_", "HF_"))}
        paths = os.pathsep.join((str(ROOT / "workflow/scripts"), str(ROOT / "workflow")))
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(ask=ask)],
            env=kept | {"PYTHONPATH": paths} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, address: str, folder: Path) -> str:
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps([address, str(folder)]), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="module")
def clients():
    """Clients by the code of their `ask`, which end with the last test."""
    with ExitStack() as ending:
        made: dict[str, Client] = {}

        def client(ask: str, **environment: str) -> Client:
            if ask not in made:
                made[ask] = Client(ask, **environment)
                ending.callback(made[ask].end)
            return made[ask]

        yield client


# --- wheels of the package index ----------------------------------------------------------------

ASK_PIP = """
from selfrepair.files.wheels import Wheel
def ask(address, folder):
    os.environ["PIP_INDEX_URL"] = address + "/simple"
    downloads.fetch_pinned(Wheel("texts", "1.0", os.environ["SHA256"]), folder)
    return "kept"
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> tuple[Path, str]:
    """The folder of an index with one wheel, and its SHA-256."""
    folder = tmp_path_factory.mktemp("index")
    wheel = folder / "simple/texts/texts-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    about = "texts-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("texts/text.bin", bytes(range(256)) * 400)
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: texts\nVersion: 1.0\n")
        tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{about}/WHEEL", tag)
        archive.writestr(f"{about}/RECORD", "")
    return folder, hashlib.sha256(wheel.read_bytes()).hexdigest()


@pytest.fixture
def pip(clients, index) -> Client:
    own = {"PIP_CONFIG_FILE": os.devnull, "PIP_DEFAULT_TIMEOUT": "1", "PIP_RETRIES": "1"}
    return clients(ASK_PIP, SHA256=index[1], **own)


def kept_wheels(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.faults
@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("asked", ["whl$", "texts/$"])
@pytest.mark.parametrize("fault", ALL)
def test_a_wheel(pip: Client, index, tmp_path: Path, fault: str, asked: str, always: bool):
    """asked: for the file, or for the page that lists it."""
    faults = Faults({asked: [fault, fault]}, always=always)
    with faulty_server.serve(Files, faults, folder=index[0]):
        told = pip.ask(faults.address, tmp_path)
    if fault == MORE or not always:
        assert told == "kept"
        assert kept_wheels(tmp_path) == ["texts-1.0.whl"]
    else:
        assert told.startswith("refused: wheel texts 1.0: pip cannot download it (")
        assert "\n" not in told
        assert "check the connection; `" in told
        assert kept_wheels(tmp_path) == []


@pytest.mark.faults
def test_a_wheel_from_an_index_with_a_certificate_of_its_own_or_none(pip, index, tmp_path: Path):
    needs("openssl")
    faults = Faults()
    with faulty_server.serve(Files, faults, certificate=tmp_path, folder=index[0]):
        told = pip.ask(faults.address, tmp_path / "cache")
    assert "wheel texts 1.0: pip cannot download it" in told
    assert faults.asked == []
    assert pip.ask("http://127.0.0.1:9", tmp_path / "cache") == told  # refuses connections
    assert kept_wheels(tmp_path / "cache") == []


# --- models and data sets of the hub ------------------------------------------------------------

ASK_MODEL = """
from huggingface_hub import constants
from common.kept_models import wrong_downloads
from selfrepair.files.hub import locate_model
def ask(address, folder):
    constants.HF_HUB_CACHE = str(folder)
    found, _ = downloads.from_hub(lambda: locate_model("org/tiny"))
    wrong = [path.name for path in wrong_downloads(found.iterdir())]
    return f"wrong: {wrong}" if wrong else "whole"
"""
ASK_DATA = """
import datasets
from huggingface_hub import constants
from selfrepair.text.sources import load_data_set
def ask(address, folder):
    constants.HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE = str(folder), str(folder / "data")
    source = {"dataset": "org/words", "split": "train"}
    return len(downloads.from_hub(lambda: load_data_set("pile", source))["text"])
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Iterator[Hub]:
    """A hub with a model and a data set, whose faults each test sets."""
    folder = tmp_path_factory.mktemp("hub")
    save_tiny_model("gpt2", folder / "model")
    (folder / "words").mkdir()
    rows = [json.dumps({"text": "w1 w2 w3 " * 40}) for _ in range(40)]
    (folder / "words/train.jsonl").write_text("\n".join(rows))
    repositories = {
        f"{kind}/org/{name}": Repository({COMMIT: folder / content}, {"main": COMMIT})
        for kind, name, content in (("models", "tiny", "model"), ("datasets", "words", "words"))
    }
    with serve_hub(Hub(repositories)) as served:
        yield served


def misbehave(hub: Hub, of: dict[str, list[str]], *, always: bool = False) -> None:
    hub.faults.over.set()
    hub.faults.over = threading.Event()
    hub.faults.of, hub.faults.always = of, always


def of_hub(hub: Hub) -> dict[str, str]:
    short = {"HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_OFFLINE": "0"}
    return {"HF_ENDPOINT": hub.endpoint, **short}


@pytest.mark.faults
@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("asked", ["resolve/.*safetensors", "/api/models/"])
@pytest.mark.parametrize("fault", ALL)
def test_a_model(clients, hub: Hub, tmp_path: Path, fault: str, asked: str, always: bool):
    """asked: for the weights, or for what the repository holds."""
    client = clients(ASK_MODEL, **of_hub(hub))
    misbehave(hub, {asked: [fault, fault]}, always=always)
    told = client.ask("", tmp_path)
    if fault == WRONG and "safetensors" in asked:
        assert told == "wrong: ['model.safetensors']"
    elif fault == MORE or (not always and fault != WRONG):
        assert told == "whole"
    else:
        assert told.startswith("refused: model org/tiny: ")
        assert "\n" not in told
        assert any(remedy in told for remedy in ("try again", "try later", "make fetch"))
        misbehave(hub, {})
        assert client.ask("", tmp_path) == "whole"  # nothing that is half there is taken for all


@pytest.mark.faults
@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("fault", [each for each in ALL if each != WRONG])
def test_a_data_set(clients, hub: Hub, tmp_path: Path, fault: str, always: bool):
    client = clients(ASK_DATA, **of_hub(hub))
    misbehave(hub, {"resolve/.*jsonl": [fault, fault]}, always=always)
    told = client.ask("", tmp_path)
    if fault == MORE or not always:
        assert told == "40"
    else:
        assert told.startswith("refused: text.sources.pile.dataset: 'org/words' ")
        assert "\n" not in told
        misbehave(hub, {})
        assert client.ask("", tmp_path) == "40"


@pytest.mark.faults
def test_a_hub_with_a_certificate_of_its_own(clients, hub: Hub, tmp_path: Path):
    needs("openssl")
    with faulty_server.serve(Files, Faults(), certificate=tmp_path, folder=tmp_path) as tls:
        client = clients(ASK_MODEL + "# TLS", **of_hub(hub) | {"HF_ENDPOINT": tls.address})
        told = client.ask("", tmp_path / "cache")
    assert told.startswith("refused: model org/tiny: ")
    assert "\n" not in told
    assert tls.asked == []


# --- results from a web server ------------------------------------------------------------------

RESULTS = {"large.bin": bytes(range(256)) * 900, "small.txt": b"numbers"}


class Store:
    """A checkout whose results are recorded and pushed, and new ones that pull them from a web server."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._here, self._count = folder / "store", folder / "here", 0
        self._new(self._here)
        for name, content in RESULTS.items():
            (self._here / name).write_bytes(content)
        outs = [option for name in RESULTS for option in ("--outs", f"results/{name}")]
        inputs = [option for name in RESULTS for option in ("--deps", name)]
        copying = f"mkdir -p results && cp {' '.join(RESULTS)} results"
        self._dvc(self._here, "stage", "add", "--name", "made", *inputs, *outs, copying)
        self._dvc(self._here, "repro")
        self._dvc(self._here, "remote", "add", "--local", "lab", str(self.folder))
        self._dvc(self._here, "push", "--remote", "lab")

    def elsewhere(self, address: str) -> Path:
        """A checkout that has nothing yet, and this store as its remote `lab`."""
        self._count += 1
        folder = self._here.with_name(f"there-{self._count}")
        self._new(folder)
        for name in ("dvc.yaml", "dvc.lock"):
            shutil.copy(self._here / name, folder / name)
        self._dvc(folder, "remote", "add", "--local", "lab", address)
        for key in ("connect_timeout", "read_timeout"):
            self._dvc(folder, "remote", "modify", "--local", "lab", key, "6")
        return folder

    @staticmethod
    def pull(folder: Path) -> subprocess.CompletedProcess[str]:
        """`make pull`, of all that is recorded."""
        own = (f"BIN={Path(sys.executable).parent}", "STAGES=true", "ARGS=--remote lab")
        return run_in(folder, "make", "--old-file", ".venv/ready", "pull", *own)

    @staticmethod
    def _new(folder: Path) -> None:
        new_checkout(folder)
        (folder / ".dvc").mkdir()
        shutil.copy(ROOT / "Makefile", folder)
        shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
        assert run_in(folder, "git", "init", "-q").returncode == 0

    @staticmethod
    def _dvc(folder: Path, *arguments: str) -> None:
        done = run_in(folder, sys.executable, "-m", "dvc", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def pulled(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "results").glob("*")}


@pytest.mark.faults
@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("fault", ALL)
def test_results_from_a_web_server(store: Store, fault: str, always: bool):
    """The next pull, when all is well, brings what is missing. (What is wrong once may be an answer that DVC does not
    read: it asks whether a file is there before it asks for it.)"""
    md5 = hashlib.md5(RESULTS["large.bin"], usedforsecurity=False).hexdigest()
    faults = Faults({md5[2:]: [fault]}, always=always)
    with faulty_server.serve(Files, faults, folder=store.folder):
        there = store.elsewhere(faults.address)
        done = store.pull(there)
        if always or fault != WRONG:
            assert (done.returncode == 0) == (fault == MORE or not always), done.stderr
        if done.returncode:
            lost = "not the recorded ones (results/large.bin)"
            assert (lost if fault == WRONG else "unreachable or lacks files") in done.stderr
            assert "Traceback" not in done.stderr
            assert "large.bin" not in pulled(there)
            faults.of = {}
            assert store.pull(there).returncode == 0
        assert pulled(there) == RESULTS


@pytest.mark.faults
def test_a_web_server_with_a_certificate_of_its_own_or_none(store: Store, tmp_path: Path):
    needs("openssl")
    with faulty_server.serve(Files, Faults(), certificate=tmp_path, folder=store.folder) as faults:
        done = [store.pull(store.elsewhere(faults.address))]
    done.append(store.pull(store.elsewhere("http://127.0.0.1:9")))  # refuses connections
    for each in done:
        assert each.returncode != 0
        assert "error: the store is unreachable" in each.stderr
        assert "Traceback" not in each.stderr
