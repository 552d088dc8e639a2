"""Results depend on the keys of the config that their rules declare, and on no other."""

import ast
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "workflow/scripts"
sys.path.insert(0, str(SCRIPTS))

from common.settings import Machine, below, machine_of, title_of  # noqa: E402

# Commands, which are no rule's script.
COMMANDS = {
    "alone",
    "audit",
    "fetch",
    "pack_records",
    "pack_shards",
    "plan",
    "recorded_stages",
    "study",
    "unpack_records",
    "update_dvc",
    "verify",
}
# Helpers of commands alone: no job imports them.
HELPERS_OF_COMMANDS = {"dvc_stages"}
# Where the config itself is read: the machine's keys, on which no result depends, and the whole config
# for the record of how a result was made.
READERS = {
    "common/settings.py": {"device", "cache", "memory", "models"},
    "common/provenance.py": {"study", "seed"},
    "common/not_measured.py": {"study"},
    "decompose.py": set(),
}


def mentions(path: Path) -> list[ast.Attribute]:
    """Every `<name>.config` of a script."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, ast.Attribute) and node.attr == "config"]


def test_only_the_machine_and_the_record_read_the_config_itself():
    others = COMMANDS | HELPERS_OF_COMMANDS
    scripts = [path for path in SCRIPTS.rglob("*.py") if path.stem not in others]
    readers = {str(path.relative_to(SCRIPTS)) for path in scripts if mentions(path)}
    assert readers == set(READERS)


@pytest.mark.parametrize("name", READERS)
def test_they_read_no_key_that_changes_a_result(name):
    keys = re.findall(r'config(?:\["|\.get\(")(\w+)', (SCRIPTS / name).read_text())
    assert set(keys) == READERS[name]


def test_a_job_knows_its_machine_from_these_keys_alone():
    config = {
        "device": "cpu",
        "cache": "resources",
        "memory": {"prompts_at_once": 3, "rows_at_once": None},
        "models": {"m": {"shape": {"layers": 2}}},
    }
    job = SimpleNamespace(config=config, wildcards={"model": "m"})
    assert machine_of(job) == Machine("cpu", Path("resources"), 3, None, {"layers": 2})
    job = SimpleNamespace(config=config, wildcards={})
    assert machine_of(job).shape == {}


def test_settings_of_a_section_and_the_title_of_a_model():
    settings = {"wheels.a": 1, "wheels.b": 2, "seed": 0, "models.{model}.title": None}
    assert below(settings, "wheels") == {"a": 1, "b": 2}
    wildcards = SimpleNamespace(model="m")
    job = SimpleNamespace(params=SimpleNamespace(settings=settings), wildcards=wildcards)
    assert title_of(job) == "m"
    settings["models.{model}.title"] = "Model M"
    assert title_of(job) == "Model M"


def test_every_script_is_one_rule_s_or_a_command():
    """And helpers have their own folder."""
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    named = set(re.findall(r'"\.\./scripts/(\w+)\.py"', rules))
    assert {path.stem for path in SCRIPTS.glob("*.py")} == named | COMMANDS


@pytest.mark.parametrize("script", sorted({p.stem for p in SCRIPTS.glob("*.py")} - COMMANDS))
def test_a_script_reads_keys_that_rules_declare(script):
    """Keys that scripts read are literal, so that they can be found beside their rule."""
    tree = ast.parse((SCRIPTS / f"{script}.py").read_text())
    reads = [
        node.slice
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("settings")
    ]
    for key in reads:
        assert isinstance(key, ast.Constant | ast.JoinedStr), ast.unparse(key)
        if isinstance(key, ast.Constant):
            rules = "".join(p.read_text() for p in (ROOT / "workflow/rules").glob("*.smk"))
            assert f'"{key.value}"' in rules, key.value
