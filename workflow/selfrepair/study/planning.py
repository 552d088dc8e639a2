"""What a study costs before it runs: arithmetic, memory, jobs and bytes, from the models' shapes alone.

It loads no model and no torch, so that a dry run can show it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..catalogue import EXPERIMENTS
from ..files.wheels import wheels_of
from ..model.sizes import ARRAYS, BYTES, Shape, chunk_tokens, prompts_at_once, shape_from
from ..model.weights import converted_folder, is_converted
from ..other_ablations import ALL_HEADS, CHOSEN_HEADS, COMPARED
from . import amounts
from .config import CLEAN, n_shards, shard_prompts
from .heads import swept_heads
from .shapes import stated_shape
from .sizes import config_of_model

GB = 1e9
# Positions of a prompt at which the harm of an ablation is measured (measure.compared_ablations), and, in a step
# of 8 prompts, trained on (measure.optimal_ablation).
HARM_POSITIONS = 16
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
        return stated_shape(model["shape"])
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
    check_bytes: float
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
    config = config_of_model(config, key)
    measurements = _flop_by_measurement(shape, config)
    training = _training_flop(shape, config)
    flop = sum(measurements.values()) + training
    longest = max(training, _longest_flop(measurements, config))
    sweep_flop = sum(replay_flop(shape, config, ablation) for ablation in config["ablations"])
    return ModelPlan(
        title=model.get("title", key),
        shape=shape,
        tokens=config["text"]["prompts"] * amounts.positions_of(config),
        sweep_flop=sweep_flop,
        other_flop=flop - sweep_flop,
        jobs=sum(n_shards(config, measurement) for measurement in measurements)
        + (training > 0)
        + (config["sweep"]["checked_heads"] > 0),
        device_bytes=device_bytes(shape, config),
        host_bytes=host_bytes(shape, config),
        check_bytes=check_bytes(shape, config),
        stored_bytes=stored_bytes(shape, config),
        hours=flop / (rate * 1e12) / 3600 if rate else None,
        longest_job_minutes=longest / (rate * 1e12) / 60 if rate else None,
    )


def check_named_heads(config: Mapping[str, Any]) -> None:
    """InputError if a completed config names a head that a model has not, where its sizes are known here."""
    named = {
        "sweep.heads": config["sweep"]["heads"],
        "experiments.optimal_heads": config["experiments"]["optimal_heads"],
    }
    for key, model in config["models"].items():
        own = {f"models.{key}.chosen_heads": model.get("chosen_heads", ALL_HEADS)}
        lists = {n: heads for n, heads in (named | own).items() if not isinstance(heads, str)}
        shape = shape_of(model, config) if lists else None
        if shape is None:
            continue
        for name, heads in lists.items():
            of_model = name if name in own else f"{name}, model {key}"
            swept_heads(heads, shape.layers, shape.heads, name=of_model)


def replay_flop(shape: Shape, config: Mapping[str, Any], ablation: str) -> float:
    """Operations of a sweep's replays: of the heads that it ablates, on the positions that their tokens need."""
    heads = swept_heads(config["sweep"]["heads"], shape.layers, shape.heads)
    of_heads = sum(shape.flop_of_head(layer) for layer, _ in heads)
    return amounts.replayed_of_sweep(config, ablation) * of_heads


def _flop_by_measurement(shape: Shape, config: Mapping[str, Any]) -> dict[str, float]:
    """Operations of each measurement that is scattered over jobs: clean pass, sweeps, experiments."""
    positions, experiments = amounts.positions_of(config), config["experiments"]
    flop = {CLEAN: config["text"]["prompts"] * positions * shape.flop_of_pass()}
    for ablation in config["ablations"]:
        recorded = amounts.recorded(shape, config, ablation) * positions * shape.flop_of_pass()
        flop[ablation] = recorded + replay_flop(shape, config, ablation)
    for experiment in EXPERIMENTS:
        length = amounts.NARROW_POSITIONS if experiment.own_prompts else positions
        flop[experiment.name] = experiments[experiment.prompts] * length * shape.flop_of_pass()
    # Chosen heads under three ablations, and once more for their neurons; each counted as one of the middle.
    chosen = experiments["heads_per_model"] * shape.flop_of_head(shape.layers // 2)
    prompts = experiments["prompts"]
    of_neurons = amounts.capped(experiments["chosen_tokens_per_head"], prompts, positions)
    of_chosen = of_neurons + experiments["chosen_random_tokens_per_head"]
    flop["chosen"] += 3 * chosen * amounts.replayed(of_chosen, prompts, positions)
    flop["neurons"] += chosen * amounts.replayed(of_neurons, prompts, positions)
    # Heads whose constants are trained, under every ablation, at drawn tokens and once more for the harm.
    trained = _trained_layers(shape, config)
    replayed = amounts.replayed(of_neurons, prompts, positions) + prompts * positions
    unembedded = 2 * prompts * HARM_POSITIONS * 2.0 * shape.vocabulary * shape.d_model
    flop["compared"] *= bool(trained)
    flop["compared"] += len(COMPARED) * sum(
        shape.flop_of_head(layer) * replayed + unembedded for layer in trained
    )
    # Each pair's first head, its second and both; and as many controls.
    of_pairs = amounts.replayed(of_neurons, experiments["pair_prompts"], positions)
    replayed_heads = 3 * 2 * experiments["pairs"]
    flop["pairs"] += replayed_heads * shape.flop_of_head(3 * shape.layers // 4) * of_pairs
    # Every head in every prompt, which also has a partner to record; the answer is predicted last.
    of_narrow = experiments["narrow_prompts"] * amounts.NARROW_POSITIONS
    flop["narrow"] += of_narrow * (shape.flop_of_sweep() + shape.flop_of_pass())
    # Iterative inference runs a layer for every head.
    iterative = 2.0 * shape.layers * shape.heads * shape.layer_parameters
    flop["iterative"] += experiments["iterative_prompts"] * positions * iterative
    return flop


def _training_flop(shape: Shape, config: Mapping[str, Any]) -> float:
    """Operations of training the constants of optimal ablation: forwards and backwards, with the
    unembedding at some positions, on 8 prompts a step; looks at the held-out loss are left out."""
    trained = _trained_layers(shape, config)
    if not trained:
        return 0.0
    experiments, positions = config["experiments"], amounts.positions_of(config)
    prompts = min(8, experiments["optimal_prompts"])
    recorded = experiments["optimal_prompts"] * positions * shape.flop_of_pass()
    unembedded = 3 * prompts * HARM_POSITIONS * 2.0 * shape.vocabulary * shape.d_model
    step = sum(
        2 * prompts * positions * shape.flop_of_head(layer) + unembedded for layer in trained
    )
    return recorded + experiments["optimal_steps"] * step


def _trained_layers(shape: Shape, config: Mapping[str, Any]) -> list[int]:
    """The layer of each head whose constant is trained; chosen ones count as three quarters deep."""
    experiments = config["experiments"]
    asked = experiments["optimal_heads"]
    if not experiments["optimal_prompts"]:
        return []
    if asked == ALL_HEADS:
        return [layer for layer in range(shape.layers) for _ in range(shape.heads)]
    if asked == CHOSEN_HEADS:
        return [3 * shape.layers // 4] * experiments["heads_per_model"]
    return [layer for layer, _ in asked]


def _longest_flop(flop: Mapping[str, float], config: Mapping[str, Any]) -> float:
    """Operations of the longest job: the first of a measurement has as many prompts as any."""
    return max(
        each * len(shard_prompts(config, measurement, 0)) / _prompts(config, measurement)
        for measurement, each in flop.items()
        if n_shards(config, measurement)
    )


def _prompts(config: Mapping[str, Any], measurement: str) -> int:
    """Prompts of all jobs of a measurement."""
    return shard_prompts(config, measurement, n_shards(config, measurement) - 1).stop


def device_kind(config: Mapping[str, Any]) -> str:
    """Where the plan places models: what the config says, a CPU if it leaves that open."""
    return "cuda" if config["device"].startswith("cuda") else "cpu"


def device_bytes(shape: Shape, config: Mapping[str, Any]) -> float:
    """The most memory that a sweep holds on the device that the model is on, in bytes."""
    dtype, positions = config["dtype"], amounts.positions_of(config)
    rows = config["memory"]["rows_at_once"] or max(
        1, chunk_tokens(device_kind(config)) // positions
    )
    return shape.weight_bytes(dtype, device_kind(config)) + shape.working_bytes(
        dtype, positions=positions, prompts=prompts_recorded(config), rows=rows
    )


def prompts_recorded(config: Mapping[str, Any]) -> int:
    """Prompts recorded at once: what the config says, else what suits the device."""
    return config["memory"]["prompts_at_once"] or prompts_at_once(device_kind(config))


def host_bytes(shape: Shape, config: Mapping[str, Any]) -> float:
    """The most main memory that a job which runs the model holds, in bytes.

    That is what the job keeps of its shard, twice while it is joined; and on a CPU everything else too.
    """
    kept = 2 * max(_kept_by_jobs(shape, config))
    on_device = device_kind(config) != "cpu"
    # Weights pass through main memory on their way to a GPU.
    held = shape.weight_bytes(config["dtype"], "cuda") if on_device else device_bytes(shape, config)
    return PROCESS_BYTES + kept + held


def check_bytes(shape: Shape, config: Mapping[str, Any]) -> float:
    """The most main memory that the comparison with the plain model holds, in bytes: the model twice, as it
    is measured and plain, and the logits of a prompt's passes and its partner's, twice each; 0 if left out."""
    if not config["sweep"]["checked_heads"]:
        return 0.0
    dtype = "float64" if config["dtype"] == "float64" else "float32"
    logits = 1.5 * shape.logit_bytes(dtype, amounts.positions_of(config))  # of two passes
    return PROCESS_BYTES + 2 * BYTES[dtype] * shape.parameters + logits


def _kept_by_jobs(shape: Shape, config: Mapping[str, Any]) -> Iterator[float]:
    """Bytes that the longest job of the clean pass, and of each sweep, keeps until it writes them."""
    longest = len(shard_prompts(config, CLEAN, 0))
    yield amounts.clean_shard_bytes(shape, config, longest)
    for ablation, asked in config["ablations"].items():
        longest = len(shard_prompts(config, ablation, 0))
        kept = amounts.sweep_bytes(shape, config, ablation, longest)
        yield kept + (amounts.map_bytes(shape) if asked["map"] else 0.0)
    if not amounts.is_sampled(config):
        # Of a few prompts at a time, before they are summed: as many as a GPU takes, if there may be one.
        auto = config["device"] == "auto" and not config["memory"]["prompts_at_once"]
        prompts = prompts_at_once("cuda") if auto else prompts_recorded(config)
        tokens = prompts * amounts.positions_of(config)
        yield 4.0 * (ARRAYS + 1) * tokens * shape.layers * shape.heads


def stored_bytes(shape: Shape, config: Mapping[str, Any]) -> float:
    """What the clean pass and the sweeps of a model leave on disk, in bytes."""
    stored = amounts.clean_shard_bytes(shape, config, config["text"]["prompts"])
    stored += amounts.ranked_bytes(shape, config)
    for ablation, asked in config["ablations"].items():
        # All shards but the last are alike.
        shards = n_shards(config, ablation)
        for shard, times in ((0, shards - 1), (shards - 1, 1)):
            prompts = len(shard_prompts(config, ablation, shard))
            stored += times * amounts.sweep_bytes(shape, config, ablation, prompts)
        stored += shards * amounts.map_bytes(shape) if asked["map"] else 0.0
    return stored


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
        f"{max(plan.host_bytes, plan.check_bytes) / GB:,.1f}",
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
