"""`selfrepair check`: what it tells of a model, and one line for each that cannot be measured."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

import tiny_models
from census import CASES
from gguf_files import TOKENS, tiny_model, write_gguf
from selfrepair.__main__ import main
from selfrepair.command import check as checking
from selfrepair.command.candidate import entry_of
from selfrepair.model import memory
from selfrepair.model.sizes import shape_from

Folder = Callable[[str], Path]
Check = Callable[..., dict]

CENSUS = {case.key: case for case in CASES}


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Check:
    """What `selfrepair check --json` prints of a model, which must be supported."""

    def run(model: object, *options: str) -> dict:
        assert main(["check", str(model), "--json", *options]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The line with which a model is refused."""

    def run(model: object, *options: str) -> str:
        assert main(["check", str(model), *options]) == 1
        told = capsys.readouterr()
        assert told.out == ""
        last = told.err.splitlines()[-1]  # below a progress bar, if there was one
        assert last.startswith("error: ")
        return last

    return run


# --- what is told -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt2", ("LayerNorm", "sequential", False, ["attention", "MLP", "norms"])),
        ("pythia", ("LayerNorm", "parallel", False, ["attention", "MLP", "norms"])),
        ("qwen2", ("RMSNorm", "sequential", False, ["attention"])),
        ("gemma2", ("RMSNorm", "sequential", True, [])),
        ("cohere", ("LayerNorm", "parallel", False, [])),
    ],
)
def test_norms_blocks_and_biases_are_told(
    name: str, expected: tuple, tiny_folder: Folder, check: Check
) -> None:
    told = check(tiny_folder(name), "--no-weights")
    assert tuple(told[key] for key in ("norm", "blocks", "post_norms", "biases")) == expected
    saved = AutoModelForCausalLM.from_pretrained(tiny_folder(name))
    assert told["parameters"] == saved.num_parameters()
    assert told["architecture"] == type(saved).__name__
    assert told["neurons"]
    assert told["weights"] is None


@pytest.mark.parametrize("name", ["gpt2", "pythia", "llama"])
def test_sizes_are_those_that_a_plan_counts_with(
    name: str, tiny_folder: Folder, check: Check
) -> None:
    shape = shape_from(tiny_models.CONFIGS[name].to_dict())
    assert shape is not None
    told = check(tiny_folder(name), "--no-weights")
    assert told["shape"] == vars(shape)
    costs = told["costs"]
    assert costs["full_sweep_flop"] == 1000 * shape.flop_of_sweep()
    assert costs["clean_pass_flop"] == 1000 * shape.flop_of_pass()
    hours = costs["full_sweep_flop"] / costs["rate"] / 3600
    assert costs["full_sweep_hours"] == pytest.approx(hours)
    assert costs["memory_bytes"] > shape.weight_bytes("float32", "cpu")


def test_a_mixture_of_experts_has_no_neurons_to_measure(
    check: Check, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_models.save(CENSUS["mixtral"].build(), tmp_path)
    assert not check(folder)["neurons"]
    assert main(["check", str(folder)]) == 0
    assert "no neurons to measure (mixture of experts)" in capsys.readouterr().out


def test_the_token_that_a_tokenizer_adds_is_named(
    tiny_folder: Folder, check: Check, tmp_path: Path
) -> None:
    from tokenizers.processors import TemplateProcessing

    folder = shutil.copytree(tiny_folder("llama"), tmp_path / "model")
    assert check(folder, "--no-weights")["tokenizer"] == {"tokens": 61, "bos": None}
    tokenizer = tiny_models.tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    tokenizer.save_pretrained(folder)
    assert check(folder, "--no-weights")["tokenizer"] == {"tokens": 61, "bos": "<bos>"}


def test_people_get_the_same_in_lines(
    tiny_folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(tiny_folder("gemma2"))]) == 0
    verdict, *lines = capsys.readouterr().out.splitlines()
    assert verdict.endswith(": supported (Gemma2ForCausalLM)")
    names = [line.split("  ")[1].strip() for line in lines]
    assert names == [
        *("layers", "blocks", "tokenizer", "parameters", "memory", "arithmetic", "time here"),
        "weights",
    ]
    text = "\n".join(lines)
    assert "3, each of 4 heads (2 KV heads) of width 8" in text
    assert "RMSNorm, with post-norms; no biases" in text
    assert "adds no BOS" in text


# --- its own weights ----------------------------------------------------------------------------


def test_local_weights_are_read_and_add_up(
    tiny_folder: Folder, check: Check, tmp_path: Path
) -> None:
    found = check(tiny_folder("llama"))["weights"]
    assert 0 < found["conservation_error"] < 1e-5
    assert 0 < found["decomposition_error"] < 1e-5
    assert found["allowed"] == 1e-3
    text = tmp_path / "words.txt"
    text.write_text(tiny_models.random_words(150, seed=0))
    own = check(tiny_folder("llama"), "--text", str(text))["weights"]
    assert (own["prompts"], own["tokens"]) == (2, 128)
    assert own["loss"] != found["loss"]


def test_weights_are_left_alone_if_told_so(
    tiny_folder: Folder, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(checking, "load_model")
    assert check(tiny_folder("llama"), "--no-weights")["weights"] is None


def test_a_config_and_a_tokenizer_are_enough(
    tiny_folder: Folder, check: Check, refusal: Callable[..., str], tmp_path: Path
) -> None:
    for part in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_folder("gpt2") / part, tmp_path)
    assert check(tmp_path)["weights"] is None
    assert "safetensors" in refusal(tmp_path, "--weights")


def test_a_text_without_a_token_is_refused(
    tiny_folder: Folder, refusal: Callable[..., str], tmp_path: Path
) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    assert "the tokenizer finds no tokens" in refusal(tiny_folder("gpt2"), "--text", str(empty))
    missing = tmp_path / "missing.txt"
    assert str(missing) in refusal(tiny_folder("gpt2"), "--text", str(missing))


def test_a_gguf_file_is_converted_and_checked(check: Check, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model("qwen2"))
    told = check(path, "--cache", str(tmp_path / "cache"))
    assert told["model"] == "tiny"
    assert told["architecture"] == "Qwen2ForCausalLM"
    assert told["tokenizer"]["tokens"] >= len(TOKENS)
    assert told["weights"]["conservation_error"] < 1e-5
    inside = check(tmp_path, "--gguf", "tiny.gguf", "--cache", str(tmp_path / "cache"))
    assert inside["parameters"] == told["parameters"]


def test_what_a_config_would_say_of_a_model(tmp_path: Path, monkeypatch) -> None:
    assert entry_of("owner/model", revision="main") == {"name": "owner/model", "revision": "main"}
    assert entry_of("o/m", gguf="a.gguf") == {"name": "o/m", "gguf": "a.gguf"}
    monkeypatch.chdir(tmp_path)
    assert entry_of("./mine") == {"name": str(tmp_path / "mine")}
    assert entry_of("mine.gguf") == {"gguf": str(tmp_path / "mine.gguf")}
    assert entry_of("mine") == {"name": "mine"}
    (tmp_path / "mine").mkdir()
    assert entry_of("mine") == {"name": str(tmp_path / "mine")}


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("mamba", "(MambaForCausalLM): backbone.layers.0 has no separable"),
        (
            "opt (norms after sublayers)",
            "(OPTForCausalLM): no stack of layers, final norm and unembedding",
        ),
    ],
)
def test_a_model_that_is_not_supported_is_refused_by_its_config_alone(
    key: str, why: str, refusal: Callable[..., str], tmp_path: Path
) -> None:
    assert why in refusal(tiny_models.save(CENSUS[key].config(), tmp_path))


def test_a_refusal_is_also_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_models.save(tiny_models.CONFIGS["mamba"], tmp_path)
    assert main(["check", str(tmp_path), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["supported"]
    assert "no separable attention heads" in told["reason"]


def test_a_model_that_does_not_fit_is_refused(
    tiny_folder: Folder, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1e4)
    assert "0.0 GB free; use dtype bfloat16" in refusal(tiny_folder("gpt2"))


def test_a_bad_path_or_folder_is_refused(
    tiny_folder: Folder, refusal: Callable[..., str], tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    assert f"{missing}: no such Hugging Face directory" in refusal(missing)
    assert "no such Hugging Face directory" in refusal(tmp_path)
    assert "no such file" in refusal(tmp_path / "a.gguf", "--cache", str(tmp_path / "cache"))
    shutil.copy(tiny_folder("gpt2") / "config.json", tmp_path)
    assert "no tokenizer found" in refusal(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model_type": "abacus"}', "\0"])
def test_a_damaged_config_is_refused(
    content: str, tiny_folder: Folder, refusal: Callable[..., str], tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_folder("gpt2"), tmp_path / "model")
    (folder / "config.json").write_text(content)
    line = refusal(folder)
    assert f"{folder}: its config.json cannot be read" in line
