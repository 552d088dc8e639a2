"""`selfrepair init`: the config that it writes is valid, is sized to the time there is, and replaces nothing."""

import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import astuple
from pathlib import Path

import pytest
import yaml

import tiny_models
from gguf_files import tiny_model, write_gguf
from selfrepair.__main__ import ROOT, _parser, main
from selfrepair.command.first_study import Checkout
from selfrepair.command.sizing import OVERHEAD_MINUTES, Sizes, largest, scaled
from selfrepair.command.study_text import prompts_in, source_of
from selfrepair.errors import InputError
from selfrepair.study.config import read_study
from selfrepair.study.planning import plan_model, plan_table

Folder = Callable[[str], Path]
Init = Callable[..., dict]
SCHEMA = ROOT / "config/schema.yaml"


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A text of 9,000 tokens of the tiny models in 30 documents."""
    path = tmp_path / "some words.txt"
    documents = [tiny_models.random_words(300, seed=seed) for seed in range(30)]
    path.write_text("\n\n\n".join(documents))
    return path


@pytest.fixture
def init(tiny_folder: Folder, tmp_path: Path) -> Init:
    """The config, completed, that `selfrepair init` writes for a tiny model."""

    def run(*options: object, model: object = None, file: str = "my-study.yaml") -> dict:
        path = tmp_path / file
        asked = ["init", path, "--model", model or tiny_folder("llama"), *options]
        assert main([*map(str, asked)]) == 0
        return read_study(path, schema=SCHEMA)

    return run


# --- the config ---------------------------------------------------------------------------------


def test_the_config_that_is_written_passes_the_planner(
    init: Init, words: Path, tiny_folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    config = init("--text", words, "--title", "Llama, tiny: 3 layers")
    told = capsys.readouterr().out
    assert config["study"] == "my-study"
    (key,) = config["models"]
    model = config["models"][key]
    assert model["name"] == str(tiny_folder("llama"))
    assert model["title"] == "Llama, tiny: 3 layers"
    assert config["text"]["sources"]["mine"]["path"] == str(words)
    assert config["text"]["tokens_per_prompt"] == 64  # all positions that the model has
    assert config["ablations"]["resample"]["map"]
    assert "Llama, tiny: 3 layers" in plan_table(config)
    plan = plan_model(key, config)
    assert plan is not None
    assert plan.hours is not None
    minutes = 60 * plan.hours + OVERHEAD_MINUTES
    assert f"about {minutes:.0f} minutes here: make study CONFIG=" in told


def test_every_key_that_is_written_is_explained_beside_it_or_in_the_read_me(
    init: Init, words: Path, tmp_path: Path
) -> None:
    init("--text", words)
    lines = (tmp_path / "my-study.yaml").read_text().splitlines()
    assert sum("#" in line for line in lines) >= 12
    assert len([line for line in lines if line and not line.startswith("#")]) < 30


def test_numbers_of_prompts_and_formats_are_taken_over(init: Init, words: Path) -> None:
    config = init("--text", words, "--prompts", "40", "--dtype", "bfloat16")
    assert config["text"]["prompts"] == 40
    assert config["dtype"] == "bfloat16"
    assert config["experiments"]["prompts"] <= 40


def test_without_a_text_it_takes_the_default_study_s(init: Init) -> None:
    config = init()
    default = read_study(ROOT / "config/config.yaml", schema=SCHEMA)
    assert config["text"]["sources"] == default["text"]["sources"]


def test_paths_in_the_checkout_are_relative_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = Checkout.at(ROOT)
    monkeypatch.chdir(ROOT / "config")
    assert checkout.written("materials.yaml") == "./config/materials.yaml"
    assert checkout.written("/elsewhere/a.txt") == "/elsewhere/a.txt"


def test_a_file_that_is_there_is_kept_unless_told_otherwise(
    init: Init, words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "my-study.yaml"
    path.write_text("mine\n")
    # Refused at once, before the model is looked for.
    assert main(["init", str(path), "--model", "/no/model"]) == 1
    assert capsys.readouterr().err == (
        f"error: {path}: is there already; name another file, or add --force\n"
    )
    assert path.read_text() == "mine\n"
    assert init("--force", "--text", words)["study"] == "my-study"


def test_nothing_is_written_for_a_model_that_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mamba = tiny_models.save(tiny_models.CONFIGS["mamba"], tmp_path / "mamba")
    path = tmp_path / "my-study.yaml"
    assert main(["init", str(path), "--model", str(mamba)]) == 1
    assert "no separable attention heads" in capsys.readouterr().err
    assert not path.exists()


def test_odd_names_become_names_that_a_study_may_have(
    init: Init, words: Path, tiny_folder: Folder
) -> None:
    config = init("--text", words, "--title", "-ü Modell «1»", file="_Änderung 2.b.yaml")
    assert config["study"] == "nderung-2-b"
    assert list(config["models"]) == ["Modell-1-"]
    assert config["models"]["Modell-1-"]["title"] == "-ü Modell «1»"


def test_a_gguf_file_is_named_as_one(init: Init, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_model("qwen2"))
    config = init("--cache", tmp_path / "cache", model=path)
    assert config["models"]["tiny"]["gguf"] == str(path)
    assert "name" not in config["models"]["tiny"]


def test_the_commands_of_the_page_are_commands() -> None:
    page = (ROOT / "docs/your-model.md").read_text()
    commands = re.findall(r"^(?:\$ )?\.venv/bin/selfrepair (.*)$", page, flags=re.M)
    assert len(commands) >= 8
    for command in commands:
        _parser().parse_args(shlex.split(command, comments=True))


# --- the text -----------------------------------------------------------------------------------


def test_a_text_is_a_file_or_a_data_set(tmp_path: Path, words: Path) -> None:
    assert source_of(str(words)) == {"kind": "file", "path": str(words), "licence": "not stated"}
    found = source_of("owner/corpus", column="body")
    assert (found["kind"], found["dataset"], found["column"]) == ("dataset", "owner/corpus", "body")
    assert source_of(str(tmp_path))["dataset"] == str(tmp_path)


@pytest.mark.parametrize("name", ["missing.txt", "./missing", "paper.pdf"])
def test_a_text_that_cannot_be_read_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paper.pdf").touch()
    with pytest.raises(InputError, match=f"text: .*{name.strip('./')}"):
        source_of(name)


def test_prompts_are_as_long_as_there_are_enough_of_them(words: Path) -> None:
    tokenizer, source = tiny_models.tiny_tokenizer(), source_of(str(words))
    # 30 documents of 300 tokens: two windows of 128 in each, four of 64, nine of 32.
    for wanted, expected in ((60, (128, 60)), (61, (64, 120)), (121, (32, 270)), (999, (128, 60))):
        asked = {"wanted": wanted, "most": 1000, "longest": 128}
        assert prompts_in(source, tokenizer, bos=False, **asked) == expected
    # A BOS is one of the tokens: 300 // 127 = 2, 300 // 31 = 9; the most is enough.
    assert prompts_in(source, tokenizer, wanted=40, most=50, longest=128, bos=True) == (128, 50)
    assert prompts_in(source, tokenizer, wanted=40, most=50, longest=9, bos=False) == (9, 50)


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.jsonl"
    path.write_text(json.dumps({"body": tiny_models.random_words(300, seed=0)}) + "\n")
    asked = {"wanted": 64, "most": 1000, "longest": 128, "bos": False}
    with pytest.raises(InputError, match="holds 9 prompts of 32 tokens, a study needs at least 32"):
        prompts_in(source_of(str(path), column="body"), tiny_models.tiny_tokenizer(), **asked)
    with pytest.raises(InputError, match="no JSON object with the key 'text'"):
        prompts_in(source_of(str(path)), tiny_models.tiny_tokenizer(), **asked)


# --- sizes --------------------------------------------------------------------------------------


def planned(tflops: float) -> Callable[[Sizes], Mapping]:
    """Configs of the default study's model on a machine of this speed."""
    default = read_study(ROOT / "config/config.yaml", schema=SCHEMA)

    def config_for(sizes: Sizes) -> Mapping:
        resample = {"prompts": sizes.swept, "tokens_per_head": None, "map": True}
        resample["prompts_per_head"] = sizes.drawn
        experiments = {"prompts": sizes.chosen, "iterative_prompts": sizes.iterative}
        # As `init` writes it, and as it leaves it out.
        experiments |= {"narrow_prompts": 0, "optimal_prompts": 0}
        return default | {
            "text": default["text"] | {"prompts": sizes.prompts},
            "ablations": {"resample": resample | {"random_tokens_per_head": sizes.random}},
            "experiments": default["experiments"] | experiments,
            "plan": {"tflops": tflops},
        }

    return config_for


def test_a_faster_machine_measures_more_in_the_same_time() -> None:
    fast, took = largest(planned(0.16), "smollm2", minutes=10.0)
    assert took is not None
    assert took <= 10
    assert fast.prompts >= 160  # the default study, with one ablation of its three
    slow, took = largest(planned(0.08), "smollm2", minutes=10.0)
    assert all(a <= b for a, b in zip(astuple(slow), astuple(fast), strict=True))
    assert slow.prompts < fast.prompts
    # Too slow for any: the smallest, and it says how long it takes.
    least, took = largest(planned(0.001), "smollm2", minutes=10.0)
    assert least == scaled(0.25)
    assert took is not None
    assert took > 60


def test_no_more_prompts_are_taken_than_the_text_holds_or_than_are_asked_for() -> None:
    assert scaled(1.0) == Sizes(160, 64, 64, 32)
    assert scaled(2.0, most=50) == Sizes(50, 50, 50, 50)
    assert scaled(0.5, prompts=300) == Sizes(300, 32, 32, 16)
    assert scaled(0.25) == Sizes(40, 16, 16, 16)


def test_the_text_of_a_config_is_yaml_of_the_keys_that_a_study_needs(
    init: Init, words: Path, tmp_path: Path
) -> None:
    init("--text", words)
    written = yaml.safe_load((tmp_path / "my-study.yaml").read_text())
    assert list(written) == ["study", "models", "text", "ablations", "experiments", "plan"]
