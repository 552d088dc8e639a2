"""Made up tables of the experiments on chosen heads, from which E3, E4, E7 to E11b and E16 to E18 are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from selfrepair.ablations import ABLATIONS
from selfrepair.other_ablations import COMPARED, RANDOM
from selfrepair.tables import compared_ablations as compared_table
from selfrepair.tables import narrow as narrow_table
from selfrepair.tables.compared_ablations import DIFFERENCE, NUMBERS, RATIO
from selfrepair.tables.narrow import ALL_HEADS, JUDGED
from selfrepair.tables.pairs import BACKUP, CONTROL, KINDS
from selfrepair.vocabulary import EFFECTS, FED_BACK, SECOND_HALF, TOKEN_REGIONS, bounded

HEADS = ((2, 1), (3, 0), (3, 2))
COUNTS = {"n_tokens": 40, "n_prompts": 7}
SHARES = (0.1, 0.2, 0.25, 0.45)
THRESHOLDS = (0.5, 0.1, 0.05, 0.025, 0.01)


def summary(quantity: str, experiment: str, **row: Any) -> dict[str, Any]:
    """A row of a summaries table, with an interval around its value."""
    keys = {"model": "toy", "experiment": experiment, "quantity": quantity}
    bounds = {"low": row["value"] - 0.05, "high": row["value"] + 0.06}
    return keys | {"layer": None, "head": None, "group": ""} | COUNTS | bounds | row


def change_first(table: pl.DataFrame, **values: float | None) -> pl.DataFrame:
    """The table with values of its first row replaced."""
    first = pl.int_range(pl.len()) == 0
    return table.with_columns(
        pl.when(first).then(pl.lit(value, dtype=pl.Float64)).otherwise(name).alias(name)
        for name, value in values.items()
    )


# E3 and E4


def token_region(effect: float, change: float) -> str:
    share = 1 + change / effect
    return TOKEN_REGIONS[0 if share < 0 else 1 if share < 0.5 else 2 if share <= 1 else 3]


def tokens(count: int = 40) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    rows = []
    for layer, head in HEADS:
        for n in range(count):
            effect, change = draw.uniform(1, 3), draw.normal(-1, 1)
            keys = {"model": "toy", "layer": layer, "head": head, "prompt": n % 7, "position": n}
            effects = {"direct_effect": effect, "ablated_direct_effect": 0.1 * effect}
            effects |= {"delta_logit": change, "self_repair": change + 0.9 * effect}
            rows.append(keys | effects | {"region": token_region(effect, change)})
    return pl.DataFrame(rows)


def region_shares() -> pl.DataFrame:
    """Of the top tokens SHARES are in the regions, of all tokens the same the other way round."""
    rows = [
        summary("region_share", "E3", layer=layer, head=head, group=f"{which}/{name}", value=value)
        for layer, head in HEADS
        for which, values in (("top", SHARES), ("all", SHARES[::-1]))
        for name, value in zip(TOKEN_REGIONS, values, strict=True)
    ]
    other = summary("region_share", "E3", layer=2, head=1, group="top/repair", value=0.9)
    return pl.DataFrame([*rows, other | {"model": "other"}])


def scale_ratios(count: int = 40) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    keys = ("model", "ablation", "layer", "head", "prompt", "position", "ratio", "direct_effect")
    rows = [
        ("toy", ablation, *head, n % 7, n, draw.normal(1.01, 0.02), draw.uniform(1, 3))
        for ablation in reversed(ABLATIONS)
        for head in HEADS
        for n in range(count)
    ]
    return pl.DataFrame(rows, schema=list(keys), orient="row")


def above_shares(pooled: bool = True) -> pl.DataFrame:
    rows = [
        summary("share_above_1", "E4", layer=layer, head=head, group=ablation, value=0.8)
        for ablation in ABLATIONS
        for layer, head in HEADS
    ]
    return pl.DataFrame(
        [*rows, *[summary("share_above_1", "E4", group="mean", value=0.6)] * pooled]
    )


# E7 to E10


def _keys(layer: int, head: int, mlp: int = 3) -> dict[str, Any]:
    return {"model": "toy", "layer": layer, "head": head, "mlp_layer": mlp}


def neuron_ranks(mlps: tuple[int, ...] = (3,)) -> pl.DataFrame:
    rows = []
    for head in HEADS:
        for mlp in mlps:
            for threshold in THRESHOLDS:
                for rank in range(1, 21):
                    share = float(np.exp(-threshold * rank * 2)) * 0.9
                    bounds = {"share": share, "low": share - 0.01, "high": share + 0.02}
                    row = _keys(*head, mlp) | {"rank": rank, "threshold": threshold}
                    rows.append(row | bounds | COUNTS)
    return pl.DataFrame(rows).sample(fraction=1, shuffle=True, seed=0)


def neuron_curve(neurons: int = 200) -> pl.DataFrame:
    ends = (1, 3, 10, 50, 120, neurons)
    effects = (-0.4, -0.2, -0.1, 0.0, 0.05, 0.1)
    rows = [
        _keys(*head)
        | {"rank_end": end, "n_neurons": neurons, "cumulative_share": (end / neurons) ** 0.5}
        | {"median_direct_effect": effect * (1 + head[1])}
        | COUNTS
        for head in HEADS
        for end, effect in zip(ends, effects, strict=True)
    ]
    return pl.DataFrame(rows)


def neuron_region(clean: float, ablated: float) -> str:
    if clean >= 0:
        return "adds more or less"
    if ablated > 0:
        return "erasure reversed"
    return "erases less" if ablated > clean else "erases more"


def top_neurons(count: int = 40) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    rows = []
    for head in HEADS:
        for n in range(count):
            clean = draw.normal(-0.5, 0.5)
            ablated = clean + draw.normal(0.4, 0.3)
            row = {"prompt": n % 7, "position": n, "neuron": n % 11, "direct_effect": clean}
            row |= {"ablated_direct_effect": ablated, "mlp_direct_effect": draw.normal(-0.3, 1)}
            rows.append(_keys(*head) | row | {"region": neuron_region(clean, ablated)})
    return pl.DataFrame(rows)


def erasure_shares(group: str = "MLP 3") -> pl.DataFrame:
    keys = {"quantity": "anti_erasure_share", "experiment": "E9", "group": group}
    rows = [
        summary(**keys, layer=layer, head=head, value=0.7 + 0.1 * head) for layer, head in HEADS
    ]
    return pl.DataFrame([*rows, summary(**keys, value=0.2)], infer_schema_length=None)


def neuron_counts() -> pl.DataFrame:
    instances = ((5, 5, 20), (8, 40, 3, 3, 3, 3, 1), (1,))
    rows = [
        _keys(*head) | {"neuron": 100 + n, "instances": count, "prompts": min(count, 7)} | COUNTS
        for head, counts in zip(HEADS, instances, strict=True)
        for n, count in enumerate(counts)
    ]
    return pl.DataFrame(rows)


# E11a and E11b


def self_repression(layers: int = 6, heads: int = 3) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    rows = []
    for layer in range(layers // 2, layers):
        for head in range(heads):
            for kind in reversed(FED_BACK):
                for scaling in (5.0, 1.0, 3.0):
                    slope = 1 - scaling * draw.uniform(0, 0.1)
                    row: dict[str, Any] = {"model": "toy", "layer": layer, "head": head}
                    row |= {"kind": kind, "scaling": scaling, "slope": slope}
                    row |= {"slope_low": slope - 0.02, "slope_high": slope + 0.03}
                    rows.append(row | COUNTS)
    return pl.DataFrame(rows)


def refeeding(layers: int = 4, heads: int = 3) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    rows = [
        {"model": "toy", "layer": layer, "head": head, "next_head": following}
        | {"refeed_change": draw.normal(0, 0.1), "ablation_change": draw.normal(0, 0.05)}
        | COUNTS
        for layer in range(layers - 1)
        for head in range(heads)
        for following in range(heads)
    ]
    return pl.DataFrame(rows)


def correlations(*pairs: float | None) -> pl.DataFrame:
    keys = {"quantity": "change_correlation", "experiment": "E11", "group": "top"}
    rows = [summary(**keys, value=0.52)]
    for layer, value in enumerate(pairs or (0.4, -0.2, 0.6)):
        row = summary(**keys, layer=layer, value=value or 0.0)
        rows.append(row | {"value": value})
    return pl.DataFrame(rows, schema_overrides={"layer": pl.Int32, "head": pl.Int32})


# E16


def co_ablation(pairs: int = 4) -> pl.DataFrame:
    """Backups whose excess is about minus what they gain, and a control of each that does nothing."""
    draw = np.random.default_rng(0)
    rows = []
    for kind in KINDS:
        for pair in range(pairs):
            change = draw.uniform(0.1, 0.3) if kind == BACKUP else draw.normal(0, 0.01)
            values = {"second_change": change, "excess": draw.normal(-0.8 * change, 0.01)}
            values |= {"delta_first": -0.5, "delta_second": -0.2, "direct_effect": 1.1}
            values["delta_both"] = -0.7 + values["excess"]
            row = {"model": "toy", "kind": kind, "layer": pair, "head": 0}
            row |= {"second_layer": pair + 2, "second_head": KINDS.index(kind)} | COUNTS
            for name, value in values.items():
                row |= dict(zip(bounded(name), (value, value - 0.03, value + 0.04), strict=True))
            rows.append(row)
    return pl.DataFrame(rows)


def excesses() -> pl.DataFrame:
    values = {("excess", BACKUP): -0.16, ("excess", CONTROL): 0.01, ("share_lost", BACKUP): 0.8}
    return pl.DataFrame(
        [
            summary(quantity, "E16", group=group, value=value)
            for (quantity, group), value in values.items()
        ]
    )


# E17


def compared_ablations() -> pl.DataFrame:
    """Heads that are repaired under every ablation, less under a random change, and harmed least by the
    optimal constant."""
    rows = []
    for at, (layer, head) in enumerate(HEADS):
        for number, ablation in enumerate(COMPARED):
            random = ablation == RANDOM
            loss = (0.04, 0.03, 0.08, 0.02, 0.05)[number] * (at + 1)
            values = dict.fromkeys(NUMBERS, 0.1) | {"direct_effect": 2.0 - at, "loss": loss}
            values |= {"self_repair": 0.02 if random else 0.9 - 0.1 * number}
            values |= {"restored_share": None if random else 0.5 - 0.05 * number}
            values |= {"loss_above_optimal": loss - 0.02 * (at + 1)}
            values |= {"spoofing": None if random else 1 - 0.02 * (at + 1) / loss}
            row = {"model": "toy", "layer": layer, "head": head, "ablation": ablation} | COUNTS
            for name, value in values.items():
                known = value is not None
                ends = (value - 0.01, value + 0.02) if known else (None, None)
                row |= dict(zip(bounded(name), (value, *ends), strict=True))
            rows.append(row)
    return pl.DataFrame(rows, schema=compared_table.TABLE_SCHEMA)


def compared() -> pl.DataFrame:
    values = {("restored_ratio", RATIO): 0.9, ("compensation_difference", DIFFERENCE): -0.1}
    values |= {("compensation", RANDOM): 0.7}
    values |= {("spoofing", name): 0.4 for name in ("resample", "mean", "zero")}
    return pl.DataFrame(
        [
            summary(quantity, "E17", group=group, value=value)
            for (quantity, group), value in values.items()
        ]
    )


# E18


def narrow_heads(layers: int = 4, heads: int = 4) -> pl.DataFrame:
    """Heads whose self-repair on the task is half of that on text, and some noise."""
    draw = np.random.default_rng(0)
    rows = []
    for layer in range(layers):
        for head in range(heads):
            on_text = draw.normal(0.2, 0.2)
            values = dict.fromkeys(EFFECTS, 0.1) | {
                "self_repair": on_text / 2 + draw.normal(0, 0.02)
            }
            values |= {"full_self_repair": on_text, "full_direct_effect": 1.0}
            row = {"model": "toy", "layer": layer, "head": head}
            for name, value in values.items():
                row |= dict(zip(bounded(name), (value, value - 0.05, value + 0.06), strict=True))
            rows.append(row | {"takes_over": 0.3, "full_takes_over": 0.2} | COUNTS)
    return pl.DataFrame(rows, schema=narrow_table.TABLE_SCHEMA)


def narrow_summaries(*, done: bool = True) -> pl.DataFrame:
    """Of a model that does the task, or does not."""
    values = {
        ("accuracy", ""): 0.9 if done else 0.5,
        ("logit_difference", ""): 2.5,
        ("self_repair_correlation", f"{SECOND_HALF}, top tokens"): 0.61,
        ("self_repair_correlation", f"{ALL_HEADS}, top tokens"): 0.43,
        ("self_repair_split_half", SECOND_HALF): 0.8,
        ("backup_overlap", "10 heads"): 0.4,
        ("backup_overlap_by_chance", "heads of the same layers"): 0.1,
    }
    if done:
        values["self_repair_correlation", JUDGED] = 0.61
    return pl.DataFrame(
        [
            summary(quantity, "E18", group=group, value=value)
            for (quantity, group), value in values.items()
        ],
        schema_overrides={"layer": pl.Int32, "head": pl.Int32},
    )
