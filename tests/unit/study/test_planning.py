"""Plans: the shapes of known models, their arithmetic against what is really run, the table."""

import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import selfrepair
import tiny_models
from gguf_files import tiny_model, write_gguf
from selfrepair import InputError
from selfrepair.measure.drawing import draw_tokens
from selfrepair.measure.token_sweep import sweep_tokens
from selfrepair.model.decoder import Decoder
from selfrepair.model.memory import shape_of_decoder
from selfrepair.model.replay import Replay
from selfrepair.model.sizes import Shape, check_shape, shape_from
from selfrepair.model.weights import model_location
from selfrepair.study import amounts
from selfrepair.study.config import read_study
from selfrepair.study.planning import (
    check_bytes,
    device_bytes,
    plan_model,
    plan_table,
    shape_of,
)
from selfrepair.study.schema import read_yaml

Tiny = Callable[..., Decoder]

ROOT = Path(__file__).parents[3]


def study(name: str) -> dict:
    return read_study(ROOT / "config" / name, schema=ROOT / "config/schema.yaml")


PAPER = study("paper.yaml")
# Parameters as their model cards and papers state them, in millions.
PARAMETERS = {
    "pythia-160m": 162.3,
    "pythia-410m": 405.3,
    "pythia-1b": 1011.8,
    "gpt2-small": 124.4,
    "gpt2-medium": 354.8,
    "gpt2-large": 774.0,
    "llama-7b": 6738.4,
    "qwen3-0.6b": 596.0,
}


@pytest.mark.parametrize("name", tiny_models.SUPPORTED)
def test_a_config_states_the_shape_of_the_model(name: str, tiny: Tiny) -> None:
    shape, found = shape_from(tiny_models.CONFIGS[name].to_dict()), shape_of_decoder(tiny(name))
    assert shape is not None
    stated = {key: getattr(shape, key) for key in vars(shape)}
    check_shape(stated, found, key="tiny")
    wrong = stated | {"d_mlp": 7}
    with pytest.raises(InputError, match=r"models.tiny.shape.d_mlp: 7, but the model has"):
        check_shape(wrong, found, key="tiny")


@pytest.mark.parametrize("name", PAPER["models"])
def test_the_papers_models_have_the_parameters_that_are_known(name: str) -> None:
    shape = shape_of(PAPER["models"][name], PAPER)
    assert shape is not None
    assert shape.parameters / 1e6 == pytest.approx(PARAMETERS[name], rel=0.01)


def counted(whole: Callable[..., object], counts: list[int]) -> Callable[..., object]:
    """A replay that also appends how many operations it took."""

    def replay(self: Replay, layer: int, **options: object) -> object:
        with FlopCounterMode(display=False) as counter:
            replayed = whole(self, layer, **options)
        counts.append(counter.get_total_flops())
        return replayed

    return replay


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny_models.WIDE)
def test_the_floor_of_a_sweep_is_what_its_replays_multiply(name: str, tmp_path: Path) -> None:
    folder = tiny_models.save_model(tiny_models.WIDE[name], tmp_path)
    model = selfrepair.load_model(folder, device="cpu", dtype="float64")  # nothing packed
    shape = shape_from(tiny_models.WIDE[name].to_dict())
    assert shape is not None
    tokens = torch.randint(0, 3000, (3, 17))
    counts: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Replay, "from_layer", counted(Replay.from_layer, counts))
        selfrepair.sweep(model, tokens, donors=tokens.roll(1, 0))
    floor = 3 * 16 * shape.flop_of_sweep()
    # Attention over 16 positions, which no floor counts, is the rest.
    assert floor <= sum(counts) < 1.06 * floor


@pytest.mark.slow
def test_the_floor_of_a_sampled_sweep_is_what_its_replays_multiply(tmp_path: Path) -> None:
    """Of tokens that lie anywhere: what the plan expects, give or take a draw."""
    config = tiny_models.WIDE["llama"]
    model = selfrepair.load_model(
        tiny_models.save_model(config, tmp_path), device="cpu", dtype="float64"
    )
    shape = shape_from(config.to_dict())
    assert shape is not None
    prompts, positions, each = 20, 40, 10
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 3000, (prompts, positions + 1), generator=generator)
    order = torch.rand(shape.layers, shape.heads, prompts * positions, generator=generator)
    drawn = draw_tokens(
        order.argsort(-1)[..., :each],
        positions=positions,
        prompts=prompts,
        tokens_per_head=None,
        random_tokens_per_head=0,
        first_position=0,
        seed=0,
    )
    counts: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Replay, "from_layer", counted(Replay.from_layer, counts))
        # Rows replayed together are as long as the longest: few together, to see what each needs.
        sweep_tokens(model, tokens, drawn, donors=tokens.roll(1, 0), batch=prompts, chunk=2)
    expected = amounts.replayed(each, prompts, positions) * shape.flop_of_sweep()
    assert sum(counts) == pytest.approx(expected, rel=0.15)


def test_a_plan_counts_what_the_config_asks_for() -> None:
    plan = plan_model("llama-7b", PAPER)
    assert plan is not None
    heads = 32 * 32
    each = sum(2 * (31 - layer) * 202.4e6 + 2 * 135.3e6 for layer in range(32)) / 32
    positions = sum(amounts.replayed(n, 1600, 127) for n in (300, 100, 100))
    # Few of 300 tokens in 1,600 prompts share one, and they lie in the middle on average.
    assert 0.9 * 500 * 72 < positions < 500 * 72
    assert plan.sweep_flop == pytest.approx(heads * positions * each, rel=1e-3)
    # The last four train and compare nothing: they end at once.
    assert plan.jobs == 10 + 3 * 4 + 4 + 4 + 2 + 1 + 1 + 4 + 1  # and the check
    assert plan.hours == pytest.approx(plan.flop / 25e12 / 3600)
    assert plan.flop > plan.sweep_flop + (7875 + 3 * 1600) * 127 * plan.shape.flop_of_pass()
    stated = PAPER["models"]["llama-7b"]["resources"]
    assert plan.host_bytes < 1e6 * stated["mem_mb"]
    assert 3 * plan.longest_job_minutes + 30 < stated["runtime"]
    half = {"sweep": PAPER["sweep"] | {"prompts_per_shard": 200}}
    assert plan_model("llama-7b", PAPER | half).jobs == plan.jobs + 3 * 4


def test_the_papers_study_takes_less_than_ten_gpu_hours() -> None:
    assert sum(plan_model(key, PAPER).hours for key in PAPER["models"]) < 10


def test_all_tokens_are_planned_as_a_replay_of_every_position() -> None:
    config = copy.deepcopy(PAPER)
    config["sweep"]["tokens"] = "all"
    for ablation in config["ablations"].values():
        ablation["map"] = False
    plan, sampled = (plan_model("llama-7b", each) for each in (config, PAPER))
    assert plan.sweep_flop == pytest.approx(3 * 1600 * 127 * plan.shape.flop_of_sweep())
    assert plan.longest_job_minutes > 5 * sampled.longest_job_minutes


def test_what_is_stored_does_not_grow_with_the_tokens_of_all_heads() -> None:
    """Ten times the sample: ten times the candidates and top tokens, and the sweeps as before."""
    larger = copy.deepcopy(PAPER)
    larger["text"]["prompts"] *= 10
    plan, ten = (plan_model("llama-7b", each) for each in (PAPER, larger))
    tokens, heads = 1_000_125, 32 * 32
    ranked = 8 * (0.1 + 0.02) * tokens * heads
    sweeps = (300 + 2 * 100) * heads * (7 * 4 + 8 + 18)
    one_map = 8 * 3 * heads * (heads + 32 + 1)
    assert plan.stored_bytes == pytest.approx(ranked + sweeps + 4 * one_map)
    assert ten.stored_bytes == pytest.approx(10 * ranked + sweeps + 4 * one_map)


def test_llama_7b_in_bfloat16_is_planned_to_fit_80_gb() -> None:
    config = PAPER | {"dtype": "bfloat16"}
    shape = shape_of(config["models"]["llama-7b"], config)
    assert shape is not None
    assert 25e9 < device_bytes(shape, config) < 40e9


@pytest.mark.parametrize("key", PAPER["models"])
def test_stated_resources_hold_the_plan(key: str) -> None:
    plan, stated = plan_model(key, PAPER), PAPER["models"][key]["resources"]
    assert plan is not None
    assert 1e6 * stated["mem_mb"] > 1.25 * plan.host_bytes
    assert plan.device_bytes < 80e9
    assert stated["runtime"] > 3 * plan.longest_job_minutes + 30


def test_the_page_about_scale_shows_the_plan() -> None:
    page = (ROOT / "docs/scale.md").read_text()
    _, *table = plan_table(study("llama-70b.yaml")).splitlines()
    assert "\n".join(table) in page


def test_the_table_shows_every_model_and_says_which_are_unknown() -> None:
    models = {**PAPER["models"], "other": {"name": "nobody/nothing", "resources": {}}}
    lines = plan_table(PAPER | {"models": models}).splitlines()
    assert lines[0].startswith("Plan of study paper (float32, at 25 TFLOP/s of an H100 80 GB; ")
    assert len(lines) == 2 + len(models)
    for key, line in zip(PAPER["models"], lines[2:], strict=False):
        assert line.startswith(PAPER["models"][key]["title"])
    assert lines[-1].startswith("other")
    assert "no `shape` stated" in lines[-1]
    assert "no hours without plan.tflops" in plan_table(PAPER | {"plan": {}})


def test_a_local_model_is_planned_from_its_config(tiny_folder: Callable[[str], Path]) -> None:
    shape = shape_of({"name": str(tiny_folder("qwen3"))}, {})
    assert shape == Shape(
        layers=3,
        heads=4,
        d_model=24,
        d_mlp=40,
        vocabulary=61,
        kv_heads=2,
        d_head=8,
        gated=True,
    )


def test_a_converted_model_is_planned_once_it_is_here(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", tiny_model("llama"))
    model, config = {"gguf": str(file)}, {"cache": str(tmp_path / "cache"), "wheels": {}}
    assert shape_of(model, config) is None
    assert shape_of({"name": "nobody/nothing", "gguf": "x.gguf"}, config) is None
    model_location(model, {}, tmp_path / "cache", key="tiny")
    shape = shape_of(model, config)
    assert shape is not None
    assert (shape.layers, shape.heads, shape.kv_heads, shape.tied) == (2, 4, 2, True)


def test_models_of_the_materials_are_planned_before_they_are_fetched() -> None:
    config = study("config.yaml")
    materials = read_yaml(ROOT / "config/materials.yaml")["models"]
    # As their model cards state them, in millions.
    stated = {
        "smollm2": 134.5,
        "gemma3-270m": 268,
        "qwen-coder-500m": 494,
        "qwen-coder-1500m": 1544,
    }
    for key, parameters in stated.items():
        shape = shape_of(materials[key], config)
        assert shape is not None
        assert shape.parameters / 1e6 == pytest.approx(parameters, rel=0.01)


def test_a_model_of_experts_has_no_shape() -> None:
    config = tiny_models.CONFIGS["llama"].to_dict() | {"num_local_experts": 8}
    assert shape_from(config) is None
    assert shape_from({"model_type": "mamba", "hidden_size": 8}) is None


def test_smollm2_large_has_100_k_tokens() -> None:
    text = study("smollm2-large.yaml")["text"]
    assert text["prompts"] * (text["tokens_per_prompt"] - 1) >= 100_000


def test_pythias_checkpoints_are_planned_offline_as_one_run_of_training() -> None:
    config = study("emergence.yaml")
    models = config["models"]
    assert len(models) == 10
    steps = [int(model["revision"].removeprefix("step")) for model in models.values()]
    assert (steps[0], steps[-1]) == (0, 143_000)
    # Pythia's checkpoints: powers of two up to 512, then every 1,000th step.
    assert all(step in {0, *(2**n for n in range(10))} or step % 1000 == 0 for step in steps)
    assert all(later <= 4 * step for step, later in pairwise(steps[1:]))
    for step, model in zip(steps, models.values(), strict=True):
        assert model["training_tokens"] == step * 1024 * 2048
        assert model["shape"] == PAPER["models"]["pythia-160m"]["shape"]
    plans = [plan_model(key, config) for key in models]
    assert {round(plan.hours, 6) for plan in plans} == {round(plans[0].hours, 6)}
    assert 0.1 < plans[0].hours < 0.5


def test_a_check_against_the_plain_model_holds_it_twice_in_float32() -> None:
    config = study("llama-70b.yaml")
    shape = shape_of(config["models"]["llama-70b"], config)
    assert shape is not None
    assert check_bytes(shape, config) == 0  # left out
    config["sweep"]["checked_heads"] = 3
    assert check_bytes(shape, config) == pytest.approx(8 * 70.6e9, rel=0.01)
    config["dtype"] = "float64"
    assert check_bytes(shape, config) == pytest.approx(16 * 70.6e9, rel=0.01)
