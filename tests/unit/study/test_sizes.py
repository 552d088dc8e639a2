"""Sizes of a model: numbers of its own in place of the study's."""

import copy
from pathlib import Path

import polars as pl
import pytest

from selfrepair.errors import InputError
from selfrepair.study.config import CLEAN, complete_config, n_shards, read_study, shard_prompts
from selfrepair.study.materials import read_materials
from selfrepair.study.planning import plan_model, plan_table
from selfrepair.study.schema import read_schema, read_yaml
from selfrepair.study.sizes import SIZES as KEYS
from selfrepair.study.sizes import config_of_model, size_key, stated_key
from selfrepair.text.windows import cut_prompts

ROOT = Path(__file__).parents[3]
SCHEMA = read_schema(ROOT / "config/schema.yaml")
MATERIALS = read_materials(ROOT / "config/materials.yaml", SCHEMA)
SIZES = {
    "prompts": 80,
    "clean": {"prompts_per_shard": 30},
    "ablations": {"resample": {"prompts": 40, "tokens_per_head": 3}},
    "sweep": {"prompts_per_shard": 10},
    "experiments": {"prompts": 20, "iterative_prompts": 8, "prompts_per_shard": 7},
}


def completed(sizes, **changes):
    """The default study with a second model, which has sizes of its own; of fewer prompts none are left to train
    constants on."""
    config = copy.deepcopy(read_yaml(ROOT / "config/config.yaml"))
    config["experiments"]["optimal_prompts"] = 0
    config |= changes
    config["models"]["gemma3-270m"] = {"sizes": copy.deepcopy(sizes)}
    return complete_config(config, SCHEMA, materials=MATERIALS)


def test_sizes_replace_the_numbers_that_they_state_and_nothing_else():
    config = completed(SIZES)
    own = config_of_model(config, "gemma3-270m")
    assert own["text"] == config["text"] | {"prompts": 80}
    resample = config["ablations"]["resample"] | {"prompts": 40, "tokens_per_head": 3}
    assert own["ablations"] == config["ablations"] | {"resample": resample}
    assert own["sweep"] == config["sweep"] | {"prompts_per_shard": 10}
    assert own["experiments"] == config["experiments"] | SIZES["experiments"]
    same = set(config) - {"text", "clean", "ablations", "sweep", "experiments"}
    assert all(own[key] == config[key] for key in same)
    assert config_of_model(config, "smollm2") == config
    assert complete_config(copy.deepcopy(config), SCHEMA, materials=MATERIALS) == config


def test_shards_and_the_plan_follow_the_model():
    config = completed(SIZES)
    own = config_of_model(config, "gemma3-270m")
    assert [n_shards(own, name) for name in (CLEAN, "resample", "neurons")] == [3, 4, 3]
    assert shard_prompts(own, "neurons", 2) == range(14, 20)
    plan, whole = (
        plan_model("gemma3-270m", each) for each in (config, completed({"prompts": 160}))
    )
    assert plan.tokens == 80 * 127
    assert plan.flop < whole.flop
    # clean 3, resample 4, mean and zero 7 each of the study's 64 prompts, experiments 3, 3 and 2,
    # pairs 7 of the study's 48 prompts, every ablation 3, the narrow task 5 of its 32; the check of the first shard.
    assert plan.jobs == 3 + 4 + 7 + 7 + 3 + 3 + 2 + 7 + 3 + 5 + 1
    assert "10,160" in plan_table(config)


def test_what_the_study_leaves_open_follows_the_model_s_own_prompts():
    config = completed({"prompts": 70}, experiments={})
    assert config["experiments"]["iterative_prompts"] == 160
    own = config_of_model(config, "gemma3-270m")["experiments"]
    assert (own["prompts"], own["iterative_prompts"]) == (70, 70)
    config = completed({"experiments": {"prompts": 9}}, experiments={})
    own = config_of_model(config, "gemma3-270m")["experiments"]
    assert (own["prompts"], own["iterative_prompts"]) == (9, 9)
    assert complete_config(copy.deepcopy(config), SCHEMA, materials=MATERIALS) == config


@pytest.mark.parametrize(
    ("sizes", "line"),
    [
        (
            {"prompts": 999},
            r"models\.gemma3-270m\.sizes\.prompts: 999 is more than text.prompts, 160",
        ),
        (
            {"ablations": {"mean": {"prompts": 200}}},
            r"models\.gemma3-270m\.sizes\.ablations\.mean\.prompts: 200 is more than text\.prompts",
        ),
        (
            {"prompts": 60},
            r"^ablations\.resample\.prompts: 64 is more than models\.gemma3-270m\.sizes\.prompts, 60",
        ),
        (
            {"prompts": 70, "experiments": {"iterative_prompts": 71}},
            r"gemma3-270m\.sizes\.experiments\.iterative_prompts: 71 is more than models\.gemma3-270m",
        ),
        (
            {"experiments": {"scalings": [1]}},
            r"models\.gemma3-270m\.sizes\.experiments: unknown key scalings",
        ),
        ({"ablations": {"resample": {"map": False}}}, "sizes.ablations.resample: unknown key map"),
        (
            {"ablations": {"resample": {"tokens_per_head": "few"}}},
            "tokens_per_head: 'few' is not of",
        ),
        ({"ablations": {"none": {"prompts": 2}}}, "sizes.ablations: unknown key none"),
        ({"prompts": 1}, "sizes.prompts: 1 is less than the minimum of 2"),
    ],
)
def test_mistakes_are_named_where_they_are_stated(sizes, line):
    with pytest.raises(InputError, match=line):
        completed(sizes)


def test_sizes_of_an_ablation_that_the_study_has_not_are_refused():
    with pytest.raises(
        InputError, match=r"sizes\.ablations\.mean: the study has no ablations\.mean"
    ):
        completed({"ablations": {"mean": {"prompts": 4}}}, ablations={"zero": {"prompts": 8}})


def test_a_key_is_found_where_it_is_stated():
    config = completed(SIZES)
    keys = ("text.prompts", "ablations.resample.prompts", "ablations.mean.prompts", "dtype")
    assert [stated_key(config, "gemma3-270m", key) for key in keys] == [
        "models.gemma3-270m.sizes.prompts",
        "models.gemma3-270m.sizes.ablations.resample.prompts",
        *keys[2:],
    ]
    assert [stated_key(config, "smollm2", key) for key in keys] == list(keys)
    assert (size_key("text.prompts"), size_key("text.bos")) == ("prompts", None)
    assert (size_key("sweep.store"), size_key("seed")) == (None, None)


def test_the_schema_allows_the_same_sizes_all_described_and_none_by_default():
    allowed = dict(SCHEMA["$defs"]["sizes"]["properties"])
    assert allowed.pop("prompts")["description"]
    allowed["ablations"] = SCHEMA["$defs"]["ablation_sizes"]
    assert {name: set(each["properties"]) for name, each in allowed.items()} == {
        name: set(keys) for name, keys in KEYS.items()
    }
    for section in allowed.values():
        for key in section["properties"].values():
            assert key["type"] in ("integer", ["integer", "null"])
            assert key["description"]
            assert "default" not in key


def test_fewer_prompts_are_the_first_of_the_same_windows():
    """Documents that give several windows too; only partners are dealt anew, among the fewer prompts."""

    def tokenizer(text, **_):
        words = text.split()
        return {"input_ids": list(range(len(words))), "offset_mapping": [(0, 1)] * len(words)}

    rows = [
        ("a" if i % 2 else "b", f"d{i}", "made up", f"{i:064}", "x " * (10 + 30 * i))
        for i in range(5)
    ]
    schema = ["source", "document", "licence", "sha256", "text"]
    documents = pl.DataFrame(rows, schema=schema, orient="row")
    sources = {"a": {"weight": 1.0}, "b": {"weight": 1.0}}

    def cut(prompts):
        return cut_prompts(
            documents, tokenizer, sources, prompts=prompts, tokens_per_prompt=10, seed=3
        )

    whole = cut(20)
    for prompts in (2, 7, 13):
        own = cut(prompts)
        assert own.drop("donor").equals(whole.head(prompts).drop("donor"))
        assert own["donor"].max() < prompts


def test_the_study_of_families_follows_its_plan():
    config = read_study(ROOT / "config/families.yaml", schema=ROOT / "config/schema.yaml")
    text = {key: value for key, value in config["text"].items() if key != "prompts"}
    default = read_study(ROOT / "config/config.yaml", schema=ROOT / "config/schema.yaml")
    assert text == {key: value for key, value in default["text"].items() if key != "prompts"}
    plans = {key: plan_model(key, config) for key in config["models"]}
    assert [plan.tokens for plan in plans.values()] == [100_076, 100_076, 50_038, 25_019, 100_076]
    assert sum(plan.hours for plan in plans.values()) < 6
    # The training of a model's constants is one job; every other one is shorter.
    assert max(plan.longest_job_minutes for plan in plans.values()) < 25
    for key in plans:
        own = config_of_model(config, key)["ablations"]
        assert own["resample"]["map"]
        each = own["resample"]["tokens_per_head"]
        few = {own[name]["tokens_per_head"] for name in ("mean", "zero")}
        assert few == {round(each / 3)}
        assert own["resample"]["random_tokens_per_head"] == round(each / 3)
        # With at least five prompts for each token, most tokens have a prompt of their own.
        assert own["resample"]["prompts"] > 5 * each
