"""The schema: every key explained, old keys told by their new names, ablations as registered."""

from pathlib import Path

import pytest

from selfrepair.ablations import ABLATIONS, Ablation
from selfrepair.errors import InputError
from selfrepair.study.config import complete_config
from selfrepair.study.materials import read_materials
from selfrepair.study.schema import (
    RENAMED,
    check_names,
    definition,
    fill_defaults,
    read_schema,
    read_yaml,
)

ROOT = Path(__file__).parents[3]
PATH = ROOT / "config/schema.yaml"
SCHEMA = read_schema(PATH)
MATERIALS = read_materials(ROOT / "config/materials.yaml", SCHEMA)
DEFAULT = read_yaml(ROOT / "config/config.yaml")


def every_property(schema, name=""):
    """Every key of a schema, with its dotted name."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    for key, part in schema.get("properties", {}).items():
        yield f"{name}{key}", part
        yield from every_property(part, f"{name}{key}.")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from every_property(schema["additionalProperties"], f"{name}*.")


def test_every_key_of_the_schema_has_a_meaning_and_a_type():
    sections = {"text", "sweep", "experiments", "statistics"}
    parts = dict(every_property(SCHEMA)) | dict(every_property(definition(SCHEMA, "materials")))
    assert len(parts) > 70
    for key, part in parts.items():
        assert {"type", "enum", "anyOf", "$ref"} & set(part), key
        assert "description" in part or key in sections or "$ref" in part, key


def test_every_key_is_explained_in_the_read_me():
    text = (ROOT / "config/README.md").read_text()
    for key, _ in every_property(SCHEMA):
        assert f"{key.rpartition('.')[2]}" in text, key


def test_old_names_are_gone_and_new_names_are_keys():
    keys = {key for key, _ in every_property(SCHEMA)}
    assert not keys & set(RENAMED)
    assert set(RENAMED.values()) <= keys


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"sweep": {"batch": 3}}, "sweep: batch is now memory.prompts_at_once"),
        ({"sweep": {"chunk": None}}, "sweep: chunk is now memory.rows_at_once"),
        ({"experiments": {"heads": 2}}, "experiments: heads is now experiments.heads_per_model"),
        ({"plan": {"device": "a GPU"}}, "plan: device is now plan.hardware"),
        (
            {"models": {"first": {}, "gpt2.x": {"heads": [[1, 2]]}}},
            "models.gpt2.x: heads is now models.gpt2.x.chosen_heads",
        ),
        (
            {"text": {"sources": {"pile": {"commit": "a" * 40}}}},
            "text.sources.pile: commit is now text.sources.pile.revision",
        ),
    ],
)
def test_a_key_of_an_earlier_version_is_refused_with_its_new_name(config, line):
    with pytest.raises(InputError) as error:
        complete_config(DEFAULT | config, SCHEMA, materials=MATERIALS)
    assert str(error.value) == line


def test_sections_that_are_no_mappings_are_left_to_the_schema():
    for config in (None, [], {"sweep": None}, {"models": ["a"]}, {"text": {"sources": 3}}):
        check_names(config)


def test_an_ablation_that_is_registered_can_be_swept(monkeypatch):
    toy = Ablation("toy", "toy ablation", lambda given: given.z)
    monkeypatch.setitem(ABLATIONS, "toy", toy)
    config = DEFAULT | {"ablations": {"toy": {"prompts": 4}}}
    complete = complete_config(config, read_schema(PATH), materials=MATERIALS)
    assert complete["ablations"]["toy"]["prompts"] == 4
    with pytest.raises(InputError) as error:
        complete_config(config, SCHEMA, materials=MATERIALS)  # read before it was registered
    known = "known keys are mean, resample, zero"
    assert str(error.value) == f"ablations: unknown key toy; {known}"


def test_no_ablation_is_named_in_the_file_of_the_schema():
    assert [name for name in ABLATIONS if f"{name}:" in PATH.read_text()] == []


def test_defaults_are_copies_that_one_study_cannot_change_for_another():
    first, second = {"experiments": {}}, {"experiments": {}}
    fill_defaults(first, SCHEMA)
    first["experiments"]["scalings"].append(7)
    fill_defaults(second, SCHEMA)
    assert second["experiments"]["scalings"] == [1, 3, 5]


def test_a_file_in_another_encoding_is_refused_in_one_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes("study: größer\n".encode("latin-1"))
    with pytest.raises(InputError, match="this is no YAML: ") as error:
        read_yaml(path)
    assert "\n" not in str(error.value)
    path.write_text("study: \x07\n")
    with pytest.raises(InputError, match=r"this is no YAML: .*position 7") as error:
        read_yaml(path)
    assert "unicode string" not in str(error.value)
