"""Per-head tables of self-repair and its parts, from per-token sweeps (method sections 3 and 4)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float

from ..errors import InputError
from ..measure.selection import top_mask
from ..vocabulary import SELECTIONS, second_half
from .bootstrap import (
    PromptSums,
    divide,
    interval,
    prompt_weights,
)

# Per layer of a sweep: its arrays by name, [prompt, position, head].
LayerArrays = Sequence[Mapping[str, torch.Tensor]]
Arrays = Mapping[str, Float[np.ndarray, "prompt position head"]]
Estimates = Mapping[str, Float[np.ndarray, "resample head"]]

MEANS = (
    "direct_effect",
    "ablated_direct_effect",
    "delta_logit",
    "self_repair",
    "from_heads",
    "from_mlps",
    "from_norm",
)
PARTS = ("self_repair", "from_heads", "from_mlps", "from_norm")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
GROUPS = ("first quarter", "second quarter", "third quarter", "last quarter")
# With fewer prompts than this a percentile interval covers clearly less than it says.
FEW_PROMPTS = 8
SECOND_HALF, LAST_BUT_ONE = "second half", "last layer but one"


def head_tables(
    sweeps: Mapping[str, LayerArrays], *, model: str, seed: int, resamples: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The main table, one row per (ablation, selection, layer, head), and a summary by depth.

    Args:
        sweeps: per ablation and layer the arrays of a SweepResult, [prompt, position, head]; of top
            tokens alone there are no rows of all tokens.
    Returns:
        heads: means in logits; shares, unitless; `self_repair_sd`, the standard deviation over
        tokens in logits, and `self_repair_noise`, the same as a multiple of the mean;
        `over_corrected_share`, of tokens with a positive direct effect those whose logit rises. Each with `_low`
        and `_high` of the 95 % bootstrap interval over prompts. Quantiles of the unclipped per-token
        ratios without one.
        depth: the same for quarters of the layers, the second half and the last layer but one,
        averaged over their heads (a share is a ratio of those averages, an SD the root of the
        averaged variance).
    Raises:
        InputError: a sample too small to have top tokens.
    """
    heads, depths = [], []
    for ablation, layers in sweeps.items():
        selections = _selections(layers[0])
        rows: dict[str, list[pl.DataFrame]] = {name: [] for name in selections}
        estimates: dict[str, list[Estimates]] = {name: [] for name in selections}
        touched: dict[str, list[Bool[np.ndarray, "prompt position"]]] = {n: [] for n in selections}
        for layer in range(len(layers)):
            tensors = layers[layer]
            arrays = {name: tensors[name].double().numpy() for name in MEANS}
            weights = prompt_weights(len(arrays["direct_effect"]), resamples, seed=seed)
            for selection in selections:
                sums = PromptSums(weights, _selected(arrays, selection))
                found = _estimates(arrays, sums)
                columns = _headline(found) | _quantiles(arrays, sums)
                keys = {"model": model, "ablation": ablation, "selection": selection}
                rows[selection].append(_head_rows(keys, columns, sums, layer))
                estimates[selection].append(found)
                touched[selection].append(np.asarray(sums.selected.any(2)))
        for selection in selections:
            keys = {"model": model, "ablation": ablation, "selection": selection}
            heads.append(pl.concat(rows[selection]))
            depths.append(_depth_rows(keys, estimates[selection], touched[selection]))
    if not heads:
        raise InputError("no sweeps to decompose")
    return pl.concat(heads), pl.concat(depths)


def _selections(layer: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """What a sweep can be averaged over: top tokens alone if nothing else was swept (then NaN)."""
    return SELECTIONS[:1] if bool(layer["self_repair"].isnan().any()) else SELECTIONS


def _selected(arrays: Arrays, selection: str) -> Bool[np.ndarray, "prompt position head"]:
    effects, measured = arrays["direct_effect"], ~np.isnan(arrays["self_repair"])
    if selection == "all":
        return np.ones(effects.shape, dtype=bool)
    # A sweep of top tokens has said which they are; its clean pass may have rounded otherwise.
    return top_mask(torch.from_numpy(effects)).numpy() if measured.all() else measured


def _estimates(arrays: Arrays, sums: PromptSums) -> dict[str, Float[np.ndarray, "resample head"]]:
    """In every resample: means of every quantity, clipped shares, and the variance of self-repair."""
    means = {name: sums.mean(values) for name, values in arrays.items()}
    for name in PARTS:
        clipped = np.clip(divide(arrays[name], arrays["direct_effect"]), 0, 1)
        known = PromptSums(sums.weights, sums.selected & ~np.isnan(clipped))
        means[f"{name}_share_clipped"] = known.mean(np.nan_to_num(clipped))
    over = np.where(np.isnan(arrays["delta_logit"]), np.nan, arrays["delta_logit"] > 0)
    positive = PromptSums(sums.weights, sums.selected & (arrays["direct_effect"] > 0))
    means["over_corrected_share"] = positive.mean(over)
    squares = sums.mean(np.square(arrays["self_repair"]))
    means["self_repair_variance"] = np.clip(squares - np.square(means["self_repair"]), 0, None)
    return means


def _derived(means: Estimates) -> Iterator[tuple[str, Float[np.ndarray, "resample head"]]]:
    """Ratios of means: each part of the direct effect, and of what the ablation really removed."""
    for name in PARTS:
        yield f"{name}_share", divide(means[name], means["direct_effect"])
    removed = means["direct_effect"] - means["ablated_direct_effect"]
    yield "restored_share", divide(means["self_repair"], removed)
    deviation = np.sqrt(means["self_repair_variance"])
    yield "self_repair_sd", deviation
    yield "self_repair_noise", divide(deviation, np.abs(means["self_repair"]))


def _headline(means: Estimates) -> dict[str, Float[np.ndarray, " head"]]:
    columns: dict[str, Float[np.ndarray, " head"]] = {}
    direct = [(name, values) for name, values in means.items() if name != "self_repair_variance"]
    for name, estimates in [*direct, *_derived(means)]:
        value, low, high = interval(estimates)
        columns |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return columns


def _quantiles(arrays: Arrays, sums: PromptSums) -> dict[str, Float[np.ndarray, " head"]]:
    """Quantiles of the unclipped per-token ratios, whose mean has no finite expectation."""
    columns = {}
    for name in PARTS:
        ratio = divide(arrays[name], arrays["direct_effect"])
        ratio = np.where(sums.selected, ratio, np.nan).reshape(-1, ratio.shape[-1])
        with warnings.catch_warnings():  # a head without any value is NaN, which is meant
            warnings.simplefilter("ignore", RuntimeWarning)
            quantiles = np.nanquantile(ratio, QUANTILES, axis=0)
        for level, values in zip(QUANTILES, quantiles, strict=True):
            columns[f"{name}_share_q{round(100 * level):02d}"] = values
    return columns


def _head_rows(
    keys: Mapping[str, str],
    columns: Mapping[str, Float[np.ndarray, " head"]],
    sums: PromptSums,
    layer: int,
) -> pl.DataFrame:
    prompts, _, n_heads = sums.selected.shape
    counts = {
        "layer": np.full(n_heads, layer),
        "head": np.arange(n_heads),
        "n_tokens": sums.selected.sum((0, 1)),
        "n_prompts": np.full(n_heads, prompts),
    }
    integers = {name: pl.Series(values, dtype=pl.Int32) for name, values in counts.items()}
    table = pl.DataFrame(integers | {name: pl.Series(v) for name, v in columns.items()})
    return table.select(*(pl.lit(v).alias(k) for k, v in keys.items()), pl.all())


def _depth_groups(n_layers: int) -> dict[str, list[int]]:
    """Quarters of the layers, as even as they go (a model of fewer than four layers has fewer), the
    second half, and the last layer but one."""
    quarters: dict[str, list[int]] = {}
    for layer in range(n_layers):
        quarters.setdefault(GROUPS[layer * len(GROUPS) // n_layers], []).append(layer)
    groups = quarters | {SECOND_HALF: list(second_half(n_layers))}
    return groups | ({LAST_BUT_ONE: [n_layers - 2]} if n_layers > 1 else {})


def _depth_rows(
    keys: Mapping[str, str],
    estimates: Sequence[Estimates],
    touched: Sequence[Bool[np.ndarray, "prompt position"]],
) -> pl.DataFrame:
    groups = _depth_groups(len(estimates))
    means = {
        name: np.stack([_over_heads(name, estimates, layers) for layers in groups.values()], axis=1)
        for name in estimates[0]
    }
    n_heads = estimates[0]["direct_effect"].shape[1]
    tokens = [np.any([touched[layer] for layer in layers], axis=0) for layers in groups.values()]
    table = pl.DataFrame(
        {
            "depth": list(groups),
            "n_heads": [n_heads * len(layers) for layers in groups.values()],
            "n_tokens": [int(each.sum()) for each in tokens],
            "n_prompts": [len(each) for each in tokens],
            **_headline(means),
        }
    )
    return table.select(*(pl.lit(v).alias(k) for k, v in keys.items()), pl.all())


def _over_heads(
    name: str, estimates: Sequence[Estimates], layers: Sequence[int]
) -> Float[np.ndarray, " resample"]:
    values = np.concatenate([estimates[layer][name] for layer in layers], axis=1)
    with warnings.catch_warnings():  # no head has a value: NaN, which is meant
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=1))


def headline(depth: pl.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Scalars by model and group of layers, which `dvc metrics show` reads: top tokens, resample
    ablation or else the first one; effects in logits, shares of the direct effect."""
    top = depth.filter(selection="top")
    names = ("direct_effect", *PARTS, *(f"{name}_share" for name in PARTS), "restored_share")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in top.filter(ablation=_headline_ablation(top)).iter_rows(named=True):
        values = {name: row[name] for name in names if np.isfinite(row[name])}
        found.setdefault(row["model"], {})[row["depth"]] = values
    return found


def _headline_ablation(depth: pl.DataFrame) -> str:
    return "resample" if "resample" in depth["ablation"] else str(depth["ablation"][0])


def findings(depth: pl.DataFrame, errors: Mapping[str, float]) -> str:
    """What a study found, as Markdown: top tokens by depth, then the last layers by ablation."""
    top = depth.filter(selection="top")
    first = _headline_ablation(top)
    worst = ", ".join(f"{name} {value:.1e}" for name, value in errors.items())
    return "\n".join(
        [
            f"Self-repair under {first} ablation on each head's top 2 % of tokens, mean over heads, "
            "in logits; shares are of the direct effect; 95 % intervals over prompts:",
            "",
            *_rows_of(top.filter(pl.col("depth").is_in(GROUPS), ablation=first), "depth"),
            "",
            "The same for the last quarter of the layers under each ablation:",
            "",
            *_rows_of(top.filter(depth=GROUPS[-1]), "ablation"),
            "",
            *_caution(top),
            f"Largest errors of the sums, in logits: {worst}.",
            "",
        ]
    )


def _caution(table: pl.DataFrame) -> list[str]:
    if (table["n_prompts"] >= FEW_PROMPTS).all():
        return []
    return [f"Intervals that rest on fewer than {FEW_PROMPTS} prompts are too narrow.", ""]


def _rows_of(table: pl.DataFrame, key: str) -> list[str]:
    """Markdown rows, one per model and `key`."""
    columns = {
        "direct effect": "direct_effect",
        "self-repair": "self_repair",
        "from heads": "from_heads",
        "from MLPs": "from_mlps",
        "from norm": "from_norm",
        "self-repair, share": "self_repair_share",
        "from norm, share": "from_norm_share",
    }
    head = ["model", "layers" if key == "depth" else key, "prompts", *columns]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in table.iter_rows(named=True):
        cells = [_cell(row, name, percent=name.endswith("share")) for name in columns.values()]
        lines.append(f"| {row['model']} | {row[key]} | {row['n_prompts']} | {' | '.join(cells)} |")
    return lines


def _cell(row: Mapping[str, Any], name: str, *, percent: bool = False) -> str:
    values = (row[name], row[f"{name}_low"], row[f"{name}_high"])
    value, low, high = (f"{100 * v:.0f}" if percent else f"{v:.2f}" for v in values)
    return f"{value}{' %' if percent else ''} [{low}, {high}]"
