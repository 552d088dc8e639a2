"""What a study costs before it runs: arithmetic, memory, jobs and bytes, from the models' shapes alone.

It loads no model and no torch, so that a dry run can show it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files.wheels import wheels_of
from ..model.sizes import ARRAYS, CHUNK_TOKENS, Shape, shape_from
from ..model.weights import converted_folder, is_converted
from .config import n_shards

GB = 1e9
# Main memory of a process that has loaded Python, torch and transformers, and nothing else yet.
PROCESS_BYTES = 1.0e9
# The table of a plan: a row per model.
COLUMNS = [
    *("model", "parameters", "tokens", "PFLOP", "hours", "device GB", "job GB", "jobs"),
    *("longest job", "stored GB"),
]


def shape_of(model: Mapping[str, Any], config: Mapping[str, Any]) -> Shape | None:
    """The shape of a model of a study: stated under `shape`, or read from its config.json if that is
    on this machine (a directory, the hub's cache, converted weights)."""
    if "shape" in model:
        stated = dict(model["shape"])
        stated.setdefault("kv_heads", stated["heads"])
        stated.setdefault("d_head", stated["d_model"] // stated["heads"])
        return Shape(**stated)
    if is_converted(model):
        folder = converted_folder(model, wheels_of(config["wheels"]), Path(config["cache"]))
        path = folder and folder / "config.json"
    else:
        # Imported here because it takes a while, and most plans are of models that state their shape.
        from ..files.hub import cached_file

        path = cached_file(str(model["name"]), "config.json", model.get("revision"))
    if path is None or not path.is_file():
        return None
    return shape_from(json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class ModelPlan:
    """What one model of a study needs; flop in operations, bytes in bytes, hours on `plan.hardware`."""

    title: str
    shape: Shape
    tokens: int
    sweep_flop: float
    other_flop: float
    jobs: int
    device_bytes: float
    host_bytes: float
    stored_bytes: float
    hours: float | None
    longest_job_minutes: float | None

    @property
    def flop(self) -> float:
        return self.sweep_flop + self.other_flop


def plan_model(key: str, config: Mapping[str, Any]) -> ModelPlan | None:
    """The plan of one model of a completed config; None if its shape is not known here."""
    model = config["models"][key]
    shape = shape_of(model, config)
    if shape is None:
        return None
    rate = config.get("plan", {}).get("tflops")
    sweep_flop = _ablated_tokens(config) * shape.flop_of_sweep()
    other_flop = _other_flop(shape, config)
    longest_flop = _longest_shard(config) * _positions(config) * shape.flop_of_sweep()
    return ModelPlan(
        title=model.get("title", key),
        shape=shape,
        tokens=config["text"]["prompts"] * _positions(config),
        sweep_flop=sweep_flop,
        other_flop=other_flop,
        jobs=sum(n_shards(config, ablation) for ablation in config["ablations"]),
        device_bytes=device_bytes(shape, config),
        host_bytes=host_bytes(shape, config),
        stored_bytes=stored_bytes(shape, config),
        hours=(sweep_flop + other_flop) / (rate * 1e12) / 3600 if rate else None,
        longest_job_minutes=longest_flop / (rate * 1e12) / 60 if rate else None,
    )


def _positions(config: Mapping[str, Any]) -> int:
    """Positions of a prompt that have a target: all but the last."""
    return int(config["text"]["tokens_per_prompt"]) - 1


def _ablated_tokens(config: Mapping[str, Any]) -> int:
    """Tokens that every head is ablated on, over all ablations."""
    return sum(a["prompts"] for a in config["ablations"].values()) * _positions(config)


def _longest_shard(config: Mapping[str, Any]) -> int:
    """Prompts of the longest job of a sweep."""
    longest_sweep = max(a["prompts"] for a in config["ablations"].values())
    return min(config["sweep"]["prompts_per_shard"], longest_sweep)


def _other_flop(shape: Shape, config: Mapping[str, Any]) -> float:
    """Operations of all but the sweeps' replays: clean passes, and the experiments on single heads."""
    positions, experiments = _positions(config), config["experiments"]
    # Clean passes over the sample and, in each sweep, over its prompts and their donors.
    tokens = config["text"]["prompts"] * positions
    passes = (tokens + 2 * _ablated_tokens(config)) * shape.flop_of_pass()
    # Iterative inference runs a layer for every head.
    iterative = 2.0 * shape.layers * shape.heads * shape.layer_parameters
    # Three ablations of as many heads as are chosen, each counted as one of the middle layer.
    chosen = 3 * experiments["heads_per_model"] * shape.flop_of_head(shape.layers // 2)
    measured = experiments["iterative_prompts"] * iterative + experiments["prompts"] * chosen
    return passes + positions * measured


def device_kind(config: Mapping[str, Any]) -> str:
    """Where the plan places models: what the config says, a CPU if it leaves that open."""
    return "cuda" if config["device"].startswith("cuda") else "cpu"


def device_bytes(shape: Shape, config: Mapping[str, Any]) -> float:
    """The most memory that a sweep holds on the device that the model is on, in bytes."""
    dtype, positions = config["dtype"], _positions(config)
    rows = config["memory"]["rows_at_once"] or max(
        1, CHUNK_TOKENS[device_kind(config)] // positions
    )
    return shape.weight_bytes(dtype, device_kind(config)) + shape.working_bytes(
        dtype, positions=positions, prompts=config["memory"]["prompts_at_once"], rows=rows
    )


def host_bytes(shape: Shape, config: Mapping[str, Any]) -> float:
    """The most main memory that a job which runs the model holds, in bytes.

    That is the results of its shard, or the clean effects of the whole sample, twice while they are
    joined; and on a CPU everything else too.
    """
    sample = config["text"]["prompts"]
    values = max(ARRAYS * min(config["sweep"]["prompts_per_shard"], sample), sample)
    results = 2 * 4.0 * values * _positions(config) * shape.layers * shape.heads
    on_device = device_kind(config) != "cpu"
    # Weights pass through main memory on their way to a GPU.
    held = shape.weight_bytes(config["dtype"], "cuda") if on_device else device_bytes(shape, config)
    return PROCESS_BYTES + results + held


def stored_bytes(shape: Shape, config: Mapping[str, Any]) -> float:
    """What the sweeps and the clean pass of a model leave on disk, in bytes."""
    heads = shape.layers * shape.heads
    size = 2 if config["sweep"]["store"] == "float16" else 4
    swept = _ablated_tokens(config) * heads
    clean = config["text"]["prompts"] * _positions(config) * heads
    return float(swept * ((ARRAYS - 1) * size + 4) + clean * 4)


def plan_table(config: Mapping[str, Any]) -> str:
    """The plan of a study, a line per model; a model whose shape is not known here says so."""
    plan = config.get("plan", {})
    where = plan.get("hardware", "this machine")
    rows = [COLUMNS]
    total = 0.0
    for key, model in config["models"].items():
        found = plan_model(key, config)
        if found is None:
            rows.append([model.get("title", key), "not on this machine, and no `shape` stated"])
            continue
        total += found.hours or 0.0
        rows.append(_cells(found))
    hours = f"; {total:,.1f} hours in all" if plan.get("tflops") else ""
    assumed = (
        f"at {plan['tflops']:g} TFLOP/s of {where}{hours}"
        if plan.get("tflops")
        else "no hours without plan.tflops"
    )
    return "\n".join(
        [f"Plan of study {config['study']} ({config['dtype']}, {assumed}):", *_aligned(rows)]
    )


def _cells(plan: ModelPlan) -> list[str]:
    """The row of a model, as COLUMNS."""
    shape = plan.shape
    return [
        plan.title,
        f"{shape.parameters / 1e9:.2f} B",
        f"{plan.tokens:,}",
        f"{plan.flop / 1e15:,.3g}",
        "" if plan.hours is None else f"{plan.hours:,.2f}",
        f"{plan.device_bytes / GB:,.1f}",
        f"{plan.host_bytes / GB:,.1f}",
        f"{plan.jobs}",
        "" if plan.longest_job_minutes is None else f"{plan.longest_job_minutes:,.1f} min",
        f"{plan.stored_bytes / GB:,.2f}",
    ]


def _aligned(rows: list[list[str]]) -> list[str]:
    """The lines of a table. A row with fewer cells, a remark, does not widen any column."""
    first = max(len(name) for name, *_ in rows)
    full = [cells for _, *cells in rows if len(cells) == len(rows[0]) - 1]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    return [
        "  ".join([name.ljust(first), *(c.rjust(w) for c, w in zip(cells, widths, strict=False))])
        for name, *cells in rows
    ]
