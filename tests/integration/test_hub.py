"""Hub models and data sets, with the hub's own client against a hub on this machine.

Each program runs in a process of its own, with its own HF_HOME: the client reads its settings once,
when it is imported. Most run with HF_HUB_OFFLINE=1 on the cache that `fetch.py` filled, as on a compute
node.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from safetensors.torch import load_file

import tiny_models
from checkouts import ROOT, new_checkout
from gguf_files import tiny_model, write_gguf
from hub_server import GRANTED, Hub, Repository, serve
from selfrepair import load_model, sweep
from selfrepair.text.documents import sample_documents
from selfrepair.text.prompts import read_prompts
from selfrepair.text.windows import cut_prompts
from tiny_models import random_words, save_tiny_model

NEW, OLD = "a" * 40, "b" * 40
WORDS = "c" * 40
NEEDED = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}
# What real repositories hold besides: the same weights again, for other programs.
DUPLICATES = [
    "pytorch_model.bin",
    "tf_model.h5",
    "flax_model.msgpack",
    "consolidated.safetensors",
    "onnx/model.onnx",
    "onnx/config.json",
]
# Runs `answers["key"] = ...` lines; what is told instead of a model or text is an InputError's message.
PRELUDE = """
import json, os, sys
from pathlib import Path
from selfrepair import InputError, load_model
from selfrepair.text.sources import load_data_set

answers = {}
def told(call):
    try:
        call()
    except InputError as error:
        return str(error)
def model(name, **options):
    loaded = load_model(name, device="cpu", **options)
    first = loaded.network.get_input_embeddings().weight[0, 0]
    return [loaded.name, loaded.commit, float(first), loaded.tokenizer("w5 w60")["input_ids"]]
def texts(dataset, column="text", **options):
    source = {"dataset": dataset, "split": "train", **options}
    return list(load_data_set("pile", source)[column])
"""


@dataclass
class Machine:
    """A machine with its own cache of the hub's files."""

    hub: Hub
    home: Path
    fetched: list[str] = field(default_factory=list)

    def run(
        self, *command: str, folder: Path, offline: bool = False, **more: str
    ) -> subprocess.CompletedProcess:
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        environment |= {
            "HF_HOME": str(self.home),
            "HF_ENDPOINT": self.hub.endpoint,
            "HF_HUB_OFFLINE": str(int(offline)),
            "PYTHONPATH": str(ROOT / "workflow"),
        }
        environment.pop("HF_TOKEN", None)
        return subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def ask(self, questions: str, *, folder: Path, offline: bool = False) -> dict:
        program = f"{PRELUDE}{questions}\nprint(json.dumps(answers))"
        done = self.run("-c", program, folder=folder, offline=offline)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def cached(self, kind: str, name: str) -> set[str]:
        folder = self.home / "hub" / f"{kind}--{name.replace('/', '--')}" / "snapshots"
        return {"/".join(p.relative_to(folder).parts[1:]) for p in folder.rglob("*") if p.is_file()}


def write_data_set(folder: Path) -> Path:
    """A data set with two subsets: `words` (split train, column text), `bodies` (test, body)."""
    card = {
        "configs": [
            {"config_name": "words", "default": True, "data_files": "words.jsonl"},
            {
                "config_name": "bodies",
                "data_files": [{"split": "test", "path": "bodies.jsonl"}],
            },
        ]
    }
    folder.mkdir()
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
    for name, column, seeds in (("words", "text", range(9)), ("bodies", "body", range(20, 22))):
        rows = [json.dumps({column: random_words(60, seed=seed)}) for seed in seeds]
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of the repositories: models `new`, `old`, `pickled`, `weightless`, `quantised`, `mamba`, `coded` (its
    config asks for code of its own); data set `words`."""
    folder = tmp_path_factory.mktemp("material")
    new, _ = (
        save_tiny_model("gpt2", folder / name, seed=n) for n, name in enumerate(("new", "old"))
    )
    for copy in ("pickled", "weightless"):
        shutil.copytree(new, folder / copy)
        (folder / copy / "model.safetensors").unlink()
    torch.save(load_file(new / "model.safetensors"), folder / "pickled" / "pytorch_model.bin")
    shutil.copytree(new, folder / "hub")
    for duplicate in DUPLICATES:
        path = folder / "hub" / duplicate
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"the same weights again")
    (folder / "quantised/files").mkdir(parents=True)
    write_gguf(folder / "quantised/files/tiny.gguf", tiny_model("llama"))
    (folder / "quantised/other.gguf").write_bytes(b"of the same model")
    write_data_set(folder / "words")
    tiny_models.save(tiny_models.CONFIGS["mamba"], folder / "mamba")
    shutil.copytree(new, folder / "coded")
    settings = json.loads((folder / "coded/config.json").read_text()) | {"model_type": "mine"}
    settings["auto_map"] = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}
    (folder / "coded/config.json").write_text(json.dumps(settings))
    (folder / "coded/mine.py").write_text("raise SystemExit('the code of the model has run')")
    return folder


@pytest.fixture(scope="module")
def hub(material: Path) -> Iterator[Hub]:
    def repository(folder: str, commit: str = NEW, **more: bool) -> Repository:
        return Repository({commit: material / folder}, {"main": commit}, **more)

    tiny = repository("hub")
    tiny.commits[OLD], tiny.refs["step1000"] = material / "old", OLD
    repositories = {
        "models/org/tiny": tiny,
        "models/org/pickled": repository("pickled"),
        "models/org/weightless": repository("weightless"),
        "models/org/gated": repository("new", gated=True),
        "models/org/quantised": repository("quantised"),
        "models/org/mamba": repository("mamba"),
        "models/org/coded": repository("coded"),
        "models/org/gated-quantised": repository("quantised", gated=True),
        "datasets/org/words": repository("words", WORDS),
        "datasets/org/gated": repository("words", WORDS, gated=True),
    }
    with serve(Hub(repositories)) as served:
        yield served


def study(models: dict, **source: str) -> dict:
    """A study of one small sweep."""
    source = {"kind": "dataset", "licence": "made up", **source}
    return {
        "study": "tiny",
        "models": models,
        "text": {"prompts": 4, "tokens_per_prompt": 16, "sources": {"pile": source}},
        "ablations": {"resample": {"prompts": 4}},
        "experiments": {"prompts_per_shard": 4},
        "statistics": {"resamples": 1000},
    }


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_checkout(tmp_path_factory.mktemp("checkout") / "repo")


def fetch(
    machine: Machine, config: dict, checkout: Path, **more: object
) -> subprocess.CompletedProcess:
    path = checkout / "config" / "mine.yaml"
    path.write_text(yaml.safe_dump(config))
    return machine.run("workflow/scripts/fetch.py", str(path), folder=checkout, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def config(material: Path) -> dict:
    models = {
        "hub": {"name": "org/tiny"},
        "old": {"name": "org/tiny", "revision": "step1000"},
        "pickled": {"name": "org/pickled", "pickle": True},
        "local": {"name": str(material / "new")},
        "quantised": {"name": "org/quantised", "gguf": "files/tiny.gguf"},
    }
    return study(models, dataset="org/words")


@pytest.fixture(scope="module")
def node(
    hub: Hub, config: dict, checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> Machine:
    """A machine whose cache `fetch.py` filled for the study."""
    machine = Machine(hub, tmp_path_factory.mktemp("node"))
    before = len(hub.downloads)
    done = fetch(machine, config, checkout)
    assert done.returncode == 0, done.stderr
    told = done.stderr.splitlines()
    assert len(told) == 2
    assert told[0] == "quantised: fetching its weights and converting them"
    assert told[1].startswith("quantised: weights are ready after ")
    machine.fetched += hub.downloads[before:]
    return machine


@pytest.fixture
def bare(hub: Hub, tmp_path: Path) -> Machine:
    return Machine(hub, tmp_path / "home")


# --- what is fetched ---------------------------------------------------------------------------


def test_fetch_takes_each_file_that_is_needed_once(node: Machine, hub: Hub) -> None:
    assert node.cached("models", "org/tiny") == NEEDED
    pickled = NEEDED - {"model.safetensors"} | {"pytorch_model.bin"}
    assert node.cached("models", "org/pickled") == pickled
    assert "datasets/org/words@c/words.jsonl" in node.fetched
    assert {f"models/org/tiny@{commit}/model.safetensors" for commit in "ab"} <= set(node.fetched)
    assert node.cached("models", "org/quantised") == {"files/tiny.gguf"}
    assert len(node.fetched) == len(set(node.fetched))


def test_fetch_again_without_the_hub_finds_everything(
    node: Machine, config: dict, checkout: Path
) -> None:
    done = fetch(node, config, checkout, offline=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_fetch_tells_which_model_is_missing_before_any_weights(
    bare: Machine, config: dict, checkout: Path, hub: Hub
) -> None:
    before = len(hub.downloads)
    models = {"first": {"name": "org/tiny"}, "llama": {"name": "org/gated"}}
    done = fetch(bare, config | {"models": models}, checkout)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "models.llama: model org/gated: gated" in line
    assert f"{hub.endpoint}/org/gated" in line
    assert all(remedy in line for remedy in ("HF_TOKEN", "hf auth login", "local directory"))
    assert [f for f in hub.downloads[before:] if f.endswith(".safetensors")] == []


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        (
            {"name": "org/quantised", "gguf": "no.gguf"},
            ["model org/quantised: the hub has no file 'no.gguf' in it; correct `gguf`"],
        ),
        (
            {"name": "org/gated-quantised", "gguf": "files/tiny.gguf"},
            ["model org/gated-quantised: gated", "HF_TOKEN"],
        ),
        (
            {"name": "org/quantised", "gguf": "files/tiny.gguf", "revision": "none"},
            ["no revision 'none'"],
        ),
    ],
)
def test_fetch_tells_which_gguf_file_is_missing_before_any_weights(
    model: dict, parts: list[str], bare: Machine, config: dict, checkout: Path, hub: Hub
) -> None:
    before = len(hub.downloads)
    models = {"first": {"name": "org/tiny"}, "q": model}
    done = fetch(bare, config | {"models": models}, checkout)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert [part for part in ["models.q: ", *parts] if part not in line] == []
    assert [f for f in hub.downloads[before:] if f.endswith((".safetensors", ".gguf"))] == []


# --- with the cache only -----------------------------------------------------------------------


def test_models_and_data_load_from_the_cache(node: Machine, material: Path) -> None:
    questions = f"""
answers["main"] = model("org/tiny")
answers["branch"] = model("org/tiny", revision="main")
answers["commit"] = model("org/tiny", revision={OLD!r})
answers["tag"] = model("org/tiny", revision="step1000")
answers["pickled"] = model("org/pickled", pickle=True)
answers["local"] = model({str(material / "new")!r}), model({str(material / "old")!r})
answers["texts"] = texts("org/words"), texts("org/words", revision={WORDS!r})
answers["absent"] = told(lambda: load_model("org/weightless"))
answers["revision"] = told(lambda: load_model("org/tiny", revision="step2000"))
answers["not a name"] = told(lambda: load_model("a/b/c"))
answers["no data"] = told(lambda: texts("org/gated"))
answers["subset"] = told(lambda: texts("org/words", subset="bodies", split="test"))
answers["data commit"] = told(lambda: texts("org/words", revision={NEW!r}))
weights = Path(os.environ["HF_HOME"], "hub/models--org--pickled/snapshots", {NEW!r}, "pytorch_model.bin")
kept = weights.rename(weights.with_name("kept"))
answers["no weights"] = told(lambda: load_model("org/pickled"))
kept.rename(weights)
"""
    answers = node.ask(questions, folder=material, offline=True)
    (new_name, none, new, tokens), (_, _, old, _) = answers["local"]
    assert (new_name, none, tokens) == (str(material / "new"), None, [5, 60])
    assert new != old
    assert answers["main"] == answers["branch"] == ["org/tiny", NEW, new, tokens]
    assert answers["tag"] == answers["commit"] == ["org/tiny", OLD, old, tokens]
    assert answers["pickled"] == ["org/pickled", NEW, new, tokens]
    assert answers["texts"] == [[random_words(60, seed=seed) for seed in range(9)]] * 2
    for key, parts in {
        "absent": ["model org/weightless", "HF_HUB_OFFLINE", "make fetch", str(node.home)],
        "revision": ["model org/tiny", "'step2000'", "HF_HUB_OFFLINE", "--revision step2000"],
        "not a name": ["model a/b/c", "neither a directory nor a hub name"],
        "no weights": ["model org/pickled", "not all of it", "make fetch"],
        "no data": ["text.sources.pile.dataset: 'org/gated'", "HF_HUB_OFFLINE", "make fetch"],
        "subset": ["text.sources.pile.dataset: 'org/words'", "bodies"],
        "data commit": ["text.sources.pile.revision", NEW, WORDS, "make fetch"],
    }.items():
        assert "\n" not in answers[key]
        assert [part for part in parts if part not in answers[key]] == []


# --- with the hub ------------------------------------------------------------------------------


def test_what_the_hub_refuses_is_told_and_a_token_opens_it(bare: Machine, material: Path) -> None:
    questions = f"""
answers["model"] = told(lambda: load_model("org/nothing"))
answers["revision"] = told(lambda: load_model("org/tiny", revision="step2000"))
answers["weightless"] = told(lambda: load_model("org/weightless"))
answers["data"] = told(lambda: texts("org/nothing"))
answers["data commit"] = told(lambda: texts("org/words", revision={NEW!r}))
for token in ("none", "hf_other", {GRANTED!r}):
    if token != "none":
        os.environ["HF_TOKEN"] = token
    answers["gated", token] = told(lambda: load_model("org/gated", device="cpu"))
    answers["gated data", token] = told(lambda: texts("org/gated"))
answers["opened"] = model("org/gated")
answers["test split"] = texts("org/words", subset="bodies", split="test", column="body")
from huggingface_hub import constants
constants.ENDPOINT = "http://127.0.0.1:9"
answers["unreachable"] = told(lambda: load_model("org/nothing"))
answers["cached"] = model("org/gated")
answers = {{" ".join(k) if isinstance(k, tuple) else k: v for k, v in answers.items()}}
"""
    answers = bare.ask(questions, folder=material)
    gated = ["accept its licence", "HF_TOKEN", "hf auth login", "local directory"]
    for key, parts in {
        "model": ["model org/nothing", "no model of this name", "`name`", "HF_TOKEN"],
        "revision": ["model org/tiny", "no revision 'step2000'", "`revision`"],
        "weightless": ["model org/weightless", "no weights", "*.safetensors"],
        "data": ["text.sources.pile.dataset: 'org/nothing'", "no data set", "`dataset`"],
        "data commit": ["text.sources.pile.dataset: 'org/words'", "no such commit", "`revision`"],
        "gated none": ["model org/gated", f"{bare.hub.endpoint}/org/gated,", *gated],
        "gated hf_other": ["model org/gated", *gated],
        "gated data none": ["'org/gated'", f"{bare.hub.endpoint}/datasets/org/gated,", *gated],
        "gated data hf_other": ["'org/gated'", *gated],
        "unreachable": ["model org/nothing", "the hub cannot be reached", "make fetch"],
    }.items():
        assert "\n" not in answers[key]
        assert [part for part in parts if part not in answers[key]] == []
    assert answers[f"gated {GRANTED}"] is answers[f"gated data {GRANTED}"] is None
    assert answers["opened"] == answers["cached"]
    assert answers["opened"][:2] == ["org/gated", NEW]
    assert answers["test split"] == [random_words(60, seed=seed) for seed in (20, 21)]


# --- a study -----------------------------------------------------------------------------------


def test_a_gguf_file_of_the_hub_is_found_and_loaded_without_the_hub(
    node: Machine, material: Path, checkout: Path, bare: Machine
) -> None:
    questions = f"""
from selfrepair.model.weights import converted_folder, model_location, weights_record
entry = {{"name": "org/quantised", "gguf": "files/tiny.gguf"}}
cache = Path({str(checkout / "resources")!r})
planned = converted_folder(entry, {{}}, cache)
answers["absent"] = planned is None
answers["told"] = told(lambda: model_location(entry, {{}}, cache, key="q"))
if planned is not None:
    answers["fetched"] = planned.is_dir()
    answers["same"] = str(planned) == model_location(entry, {{}}, cache, key="q")
    answers["record"] = weights_record(str(planned))
    answers["layers"] = len(load_model(planned, device="cpu").layers)
"""
    answers = node.ask(questions, folder=checkout, offline=True)
    assert answers["record"].pop("sha256")
    assert answers == {
        "absent": False,
        "told": None,
        "fetched": True,
        "same": True,
        "layers": 2,
        "record": {
            "file": "tiny",
            "commit": NEW,
            "architecture": "llama",
            "quantisation": {"F32": 20},
            "tied_embeddings": True,
        },
    }
    answers = bare.ask(questions, folder=checkout, offline=True)
    assert answers["absent"]
    for part in ("models.q: model org/quantised: files/tiny.gguf is not", "HF_HUB_OFFLINE"):
        assert part in answers["told"]
    assert "`hf download org/quantised files/tiny.gguf`" in answers["told"]


def test_a_study_of_hub_names_equals_that_of_local_directories(
    node: Machine, config: dict, checkout: Path, material: Path
) -> None:
    """Through Snakemake up to the sweep by hub names; by local directories through the library."""
    path = checkout / "config" / "hub.yaml"
    path.write_text(yaml.safe_dump(config | {"models": {"m": config["models"]["hub"]}}))
    results = checkout / "results" / "tiny"
    shard = results / "m/sweeps/resample/shard-0of1.safetensors"
    command = ["-m", "snakemake", str(shard.relative_to(checkout))]
    command += ["--cores", "2", "--configfile", str(path)]
    done = node.run(*command, folder=checkout, offline=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for sidecar in (results / "m/clean.json", shard.with_suffix(".json")):
        assert json.loads(sidecar.read_text())["model_commit"] == NEW

    source = config["text"]["sources"]["pile"] | {"dataset": str(material / "words")}
    sources = {"pile": source | {"split": "train", "column": "text", "weight": 1}}
    sizes = {"prompts": 4, "tokens_per_prompt": 16, "seed": 0}
    documents = sample_documents(sources, **sizes, wheels={}, cache=material)
    assert documents.equals(pl.read_parquet(results / "documents.parquet"))
    model = load_model(material / "new", device="cpu")
    assert model.commit is None
    prompts = cut_prompts(documents, model.tokenizer, sources, **sizes)
    assert prompts.equals(pl.read_parquet(results / "m/prompts.parquet"))
    prompts = read_prompts(results / "m/prompts.parquet")
    tokens, donors = prompts.tokens, prompts.donors
    swept = sweep(model, tokens, donors=tokens[donors], ablation="resample")
    found = load_file(shard)
    at = tuple(found[name].long() for name in ("prompt", "position", "layer", "head"))
    assert len(at[0]) >= 3 * 3
    expected = swept.self_repair[at]
    torch.testing.assert_close(expected, found["self_repair"], rtol=0, atol=1e-5)


# --- the command line --------------------------------------------------------------------------

# Each command's exit status, and what it prints; the speed of a single replay is as good as any here.
COMMANDS = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from selfrepair.__main__ import main
from selfrepair.command import check

check.replay_rate = partial(check.replay_rate, seconds=0.0)
def command(line):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(line.split())
    return status, out.getvalue(), err.getvalue().splitlines()[-1:]
print(json.dumps({key: command(line) for key, line in json.loads(sys.argv[1]).items()}))
"""
ONLINE = {
    "supported": "check org/tiny --json",
    "commit": "check org/tiny --revision step1000 --json",
    "written": "init mine.yaml --model org/tiny --text text.txt",
    "pinned": "init pinned.yaml --model org/tiny --revision step1000 --text text.txt --prompts 40",
    "architecture": "check org/mamba",
    "code": "init coded.yaml --model org/coded --text text.txt",
    "absent": "check org/nothing --json",
    "no revision": "init none.yaml --model org/tiny --revision step2000",
    "gated": "check org/gated",
}
OFFLINE = {
    "commit": "check org/tiny --revision step1000 --json",
    "written": "init again.yaml --model org/tiny --text text.txt",
    "absent": "check org/nothing",
}


@pytest.fixture(scope="module")
def commands(
    hub: Hub, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Machine, Path, dict[str, list], list[str]]:
    """A machine on which `check` and `init` were given hub names, where, what they said and downloaded."""
    machine, folder = Machine(hub, tmp_path_factory.mktemp("home")), tmp_path_factory.mktemp("work")
    documents = (random_words(300, seed=seed) for seed in range(30))
    (folder / "text.txt").write_text("\n\n\n".join(documents))
    before = len(hub.downloads)
    answers = said(machine, ONLINE, folder)
    return machine, folder, answers, hub.downloads[before:]


def said(
    machine: Machine, lines: dict[str, str], folder: Path, *, offline: bool = False
) -> dict[str, list]:
    done = machine.run("-c", COMMANDS, json.dumps(lines), folder=folder, offline=offline)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_hub_name_is_checked_by_its_small_files(commands) -> None:
    machine, _, answers, downloads = commands
    for key in ("supported", "commit"):
        status, told, wrong = answers[key]
        assert (status, wrong) == (0, [])
        report = json.loads(told)
        assert (report["supported"], report["model"]) == (True, "tiny")
        assert (report["shape"]["layers"], report["shape"]["heads"]) == (3, 3)
        assert report["weights"] is None
    assert machine.cached("models", "org/tiny") == NEEDED - {"model.safetensors"}
    snapshots = machine.home / "hub/models--org--tiny/snapshots"
    assert {path.name for path in snapshots.iterdir()} == {NEW, OLD}
    assert not [file for file in downloads if file.endswith((".safetensors", ".bin", ".h5", ".py"))]


def test_init_writes_a_config_for_a_hub_name(commands) -> None:
    _, folder, answers, _ = commands
    for key in ("written", "pinned"):
        status, told, wrong = answers[key]
        assert (status, wrong) == (0, []), wrong
        assert "is written. To run it" in told
    plain, pinned = (
        yaml.safe_load((folder / name).read_text()) for name in ("mine.yaml", "pinned.yaml")
    )
    assert plain["models"] == {"tiny": {"title": "tiny", "name": "org/tiny"}}
    assert pinned["models"]["tiny"]["revision"] == "step1000"
    assert pinned["text"]["prompts"] == 40


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("architecture", ["org/mamba", "no separable attention heads"]),
        ("code", ["org/coded", "asks for code of its own (auto_map), which is never run"]),
        ("absent", ["org/nothing", "no model of this name", "correct `name`", "HF_TOKEN"]),
        ("no revision", ["org/tiny", "no revision 'step2000'", "correct `revision`"]),
        ("gated", ["org/gated", "accept its licence", "HF_TOKEN"]),
    ],
)
def test_a_hub_name_that_cannot_be_studied_is_one_line(
    commands, key: str, parts: list[str]
) -> None:
    _, folder, answers, _ = commands
    status, told, (line,) = answers[key]
    assert status == 1
    assert line.startswith("error: model ")
    assert [part for part in parts if part not in line] == []
    if told:  # --json
        assert json.loads(told) == {"supported": False, "reason": line.removeprefix("error: ")}
    assert {path.name for path in folder.iterdir()} == {"text.txt", "mine.yaml", "pinned.yaml"}


def test_without_the_hub_a_name_is_found_in_its_cache(commands) -> None:
    machine, folder, online, _ = commands
    offline = said(machine, OFFLINE, folder, offline=True)
    for key in ("commit", "written"):
        assert offline[key][0] == 0, offline[key]
    assert json.loads(offline["commit"][1])["shape"] == json.loads(online["commit"][1])["shape"]
    again, before = (yaml.safe_load((folder / n).read_text()) for n in ("again.yaml", "mine.yaml"))
    assert again["models"] == before["models"]
    status, _, (line,) = offline["absent"]
    assert status == 1
    for part in ("model org/nothing", "HF_HUB_OFFLINE is set", "hf download org/nothing"):
        assert part in line
    (folder / "again.yaml").unlink()
