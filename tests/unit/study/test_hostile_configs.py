"""Configs that were made to harm, and configs made up at random from the schema: planned, or refused in one line
that names the key."""

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from selfrepair.errors import InputError
from selfrepair.study.config import complete_config, read_study
from selfrepair.study.materials import read_materials
from selfrepair.study.planning import plan_table
from selfrepair.study.schema import Schema, read_schema

ROOT = Path(__file__).parents[3]
SCHEMA = read_schema(ROOT / "config/schema.yaml")
MATERIALS = read_materials(ROOT / "config/materials.yaml", SCHEMA)
SHAPE = {"layers": 12, "heads": 12, "d_model": 768, "d_mlp": 3072, "vocabulary": 50257}
BASE: dict[str, Any] = {
    "study": "fuzzed",
    "models": {"a": {"name": "org/a", "shape": SHAPE}, "b": {"name": "org/b", "shape": SHAPE}},
    "text": {"prompts": 400, "sources": {"news": {"weight": 2}}},
    "ablations": {"resample": {"prompts": 100, "map": True}, "zero": {"prompts": 50}},
    "plan": {"tflops": 1.0},
}
WHEEL = {"version": "1.0", "sha256": "0" * 64}
# Of every kind, and at every edge.
ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 2**31, 10**15, 10**400, 0.5, 1e-300, 1e308),
    *(float("nan"), float("inf"), "", "a", "../a", "a b", "a\n", "$(reboot)", "é" * 200, "\0"),
    *([], [1], [[0, 0]], [1, 1], {}, {"a": 1}, {1: 2}, {"": None}, b"a", {1, 2}),
]


def complete(config: Any) -> dict[str, Any]:
    return complete_config(copy.deepcopy(config), SCHEMA, materials=MATERIALS)


def refusal(config: Any) -> str:
    with pytest.raises(InputError) as caught:
        complete(config)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 2000
    return message


# --- fuzzed -------------------------------------------------------------------------------------


def places(schema: Schema, value: Any = None, path: tuple = ()) -> Iterator[tuple[tuple, Schema]]:
    """Every key that a config may have, with its schema; for names that may be any, those of BASE."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    parts = dict(schema.get("properties", {}))
    others = schema.get("additionalProperties")
    if isinstance(others, dict):
        names = list(value) if isinstance(value, dict) else []
        parts |= dict.fromkeys([*names, "c"], others)
    for key, part in parts.items():
        below = value.get(key) if isinstance(value, dict) else None
        yield (*path, key), part
        yield from places(part, below, (*path, key))


PLACES = list(places(SCHEMA, BASE))


def fitting(part: Schema, rng: np.random.Generator) -> Any:
    """A value that the schema allows here, as far as a type, bounds and choices say."""
    if "enum" in part:
        return part["enum"][rng.integers(len(part["enum"]))]
    kinds = part.get("type", "object")
    kind = kinds if isinstance(kinds, str) else kinds[rng.integers(len(kinds))]
    if kind in ("integer", "number"):
        low = part.get("minimum", part.get("exclusiveMinimum", 0))
        high = part.get("maximum", low + 10 ** rng.integers(0, 7))
        drawn = low + (high - low) * rng.random() ** 2
        return int(drawn) if kind == "integer" else max(float(drawn), 1e-3)
    if kind == "array":
        return [fitting(part.get("items", {}), rng) for _ in range(rng.integers(0, 3))]
    return {"string": "a", "boolean": bool(rng.integers(2)), "null": None}.get(kind, {})


def put(config: dict, path: tuple, value: Any) -> None:
    for key in path[:-1]:
        if not isinstance(config.get(key), dict):
            config[key] = {}
        config = config[key]
    config[path[-1]] = value


def check_fuzzed(seed: int) -> bool:
    """Whether a config changed at random is planned; if not, it is refused as it should be."""
    rng, config = np.random.default_rng(seed), copy.deepcopy(BASE)
    for _ in range(rng.integers(1, 5)):
        path, part = PLACES[rng.integers(len(PLACES))]
        odd = rng.random() < 0.3
        put(config, path, ODD[rng.integers(len(ODD))] if odd else fitting(part, rng))
    start = time.monotonic()
    try:
        found = complete(config)
    except InputError as error:
        message = str(error)
    else:
        assert found == complete(found)  # completing it again changes nothing
        plan = plan_table(found)
        assert "Plan of study" in plan
        assert "nan" not in plan
        return True
    assert time.monotonic() - start < 10
    assert "\n" not in message
    assert len(message) < 2000
    key = message.split(":")[0].split(".")[0]
    assert key in {*SCHEMA["properties"], "config"}, message
    return False


def test_fuzzed_configs_are_planned_or_refused_in_a_line_that_names_the_key() -> None:
    planned = [check_fuzzed(seed) for seed in range(150)]
    assert 10 < sum(planned) < 140


@pytest.mark.hostile
def test_many_fuzzed_configs_are_planned_or_refused() -> None:
    assert sum(check_fuzzed(seed) for seed in range(150, 1500)) > 100


def test_a_plan_of_any_number_of_jobs_takes_no_time() -> None:
    config = copy.deepcopy(BASE)
    config["text"]["prompts"] = config["ablations"]["resample"]["prompts"] = 10**15
    config["sweep"] = {"prompts_per_shard": 1}
    assert "Plan of study" in plan_table(complete(config))


# --- YAML ---------------------------------------------------------------------------------------

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    "content",
    [
        LAUGHS,
        f"study: x\nmodels: {{a: *a}}\n{LAUGHS}",
        "a: &a [*a]",
        "a: &a {b: *a}",
        "[" * 20_000,
        "{a: " * 20_000,
        "- " * 5_000,
        "a: " + "x" * (2 << 20),
        "!!python/object/apply:os.system [touch ran]",
        "a: !!python/name:os.system",
        "study: !!binary aGk=",
        "study: 2026-01-01",
        "? [a, b]\n: c",
        "1: 2",
        "null: 2",
        "\0",
        "%",
    ],
    ids=range(17),
)
def test_yaml_that_explodes_or_runs_something_is_refused(tmp_path: Path, content: str) -> None:
    path, process = tmp_path / "study.yaml", psutil.Process()
    path.write_text(content)
    start, before = time.monotonic(), process.memory_info().rss
    with pytest.raises(InputError) as caught:
        read_study(path, schema=ROOT / "config/schema.yaml")
    assert time.monotonic() - start < 20  # measured: under 1 s
    assert process.memory_info().rss - before < 200 << 20
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400, 2**60])
@pytest.mark.parametrize("path", [("plan", "tflops"), ("text", "prompts"), ("seed",)])
def test_a_number_that_is_none_names_its_key(path: tuple, value: float) -> None:
    config = copy.deepcopy(BASE)
    put(config, path, value)
    assert refusal(config).startswith(f"{'.'.join(path)}: ")


# --- names --------------------------------------------------------------------------------------

NAMES = [
    *(
        "",
        ".",
        "..",
        "../a",
        "/tmp/a",
        "a/b",
        "a b",
        "a\n",
        "a\0",
        "$(reboot)",
        "a;b",
        "`a`",
        "-rf",
    ),
    *("a*", "a{b}", "a'b", 'a"b', "é", "a" * 255, "a" * 100_000, "--index-url=http://x"),
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:20]))
def test_names_of_folders_are_plain(name: str) -> None:
    """What becomes part of a path, a target of Snakemake or an argument of pip."""
    assert refusal(BASE | {"study": name}).startswith("study: ")
    assert refusal(BASE | {"models": {name: BASE["models"]["a"]}}).startswith("models: ")
    assert refusal(BASE | {"wheels": {name: WHEEL}}).startswith("wheels: ")
    assert refusal(BASE | {"wheels": {"a": WHEEL | {"version": name}}}).startswith(
        "wheels.a.version: "
    )


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:20]))
def test_any_name_of_a_source_or_title_is_harmless(name: str) -> None:
    """They are written into tables and pages, as text."""
    config = copy.deepcopy(BASE)
    config["text"]["sources"] = {name: {"kind": "python_docs", "licence": name or "none"}}
    config["models"]["a"]["title"] = name
    assert complete(config)["text"]["sources"][name]["kind"] == "python_docs"
    assert "Plan of study" in plan_table(complete(config))
