"""Per-head tables of self-repair and its parts, from per-token sweeps (method sections 3 and 4)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float

from .errors import InputError
from .selection import top_mask
from .statistics import PromptSums, divide, interval, prompt_weights

Arrays = Mapping[str, Float[np.ndarray, "prompt position head"]]

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
SELECTIONS = ("top", "all")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
GROUPS = ("first quarter", "second quarter", "third quarter", "last quarter")


def head_tables(
    sweeps: Mapping[str, Mapping[str, torch.Tensor]], *, model: str, seed: int, resamples: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The main table, one row per (ablation, selection, layer, head), and a summary by depth.

    Args:
        sweeps: per ablation the arrays of a SweepResult, [prompt, position, layer, head].
    Returns:
        heads: means in logits and shares, unitless, with `_low` and `_high` of the 95 % bootstrap
        interval; clipped shares and quantiles of unclipped per-token ratios without one.
        depth: the same headline columns for quarters of the layers, averaged over their heads (a
        share is a ratio of those averages).
    Raises:
        InputError: a sample too small to have top tokens.
    """
    heads, depths = [], []
    for ablation, tensors in sweeps.items():
        prompts, _, layers, n_heads = tensors["direct_effect"].shape
        arrays = {name: tensors[name].flatten(2).double().numpy() for name in MEANS}
        weights = prompt_weights(prompts, resamples, seed=seed)
        for selection in SELECTIONS:
            sums = PromptSums(weights, _selected(arrays["direct_effect"], selection))
            estimates = _estimates(arrays, sums)
            keys = {"model": model, "ablation": ablation, "selection": selection}
            columns = _headline(estimates) | _per_token_shares(arrays, sums)
            heads.append(_head_rows(keys, columns, sums, layers, n_heads))
            depths.append(_depth_rows(keys, estimates, sums, layers, n_heads))
    if not heads:
        raise InputError("no sweeps to decompose")
    return pl.concat(heads), pl.concat(depths)


def _selected(
    direct_effect: Float[np.ndarray, "prompt position head"], selection: str
) -> Bool[np.ndarray, "prompt position head"]:
    if selection == "all":
        return np.ones(direct_effect.shape, dtype=bool)
    return top_mask(torch.from_numpy(direct_effect)).numpy()


def _estimates(arrays: Arrays, sums: PromptSums) -> dict[str, Float[np.ndarray, "resample head"]]:
    """Means of every quantity in every resample."""
    return {name: sums.mean(values) for name, values in arrays.items()}


def _shares(
    means: Mapping[str, Float[np.ndarray, "resample head"]],
) -> Iterator[tuple[str, Float[np.ndarray, "resample head"]]]:
    """Ratio of means: each part of the direct effect, and of what the ablation really removed."""
    for name in PARTS:
        yield f"{name}_share", divide(means[name], means["direct_effect"])
    removed = means["direct_effect"] - means["ablated_direct_effect"]
    yield "restored_share", divide(means["self_repair"], removed)


def _headline(
    means: Mapping[str, Float[np.ndarray, "resample head"]],
) -> dict[str, Float[np.ndarray, " head"]]:
    columns: dict[str, Float[np.ndarray, " head"]] = {}
    for name, estimates in [*means.items(), *_shares(means)]:
        value, low, high = interval(estimates)
        columns |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return columns


def _per_token_shares(arrays: Arrays, sums: PromptSums) -> dict[str, Float[np.ndarray, " head"]]:
    """The paper's mean of clipped ratios, and quantiles of the unclipped ones (whose mean has no
    finite expectation)."""
    columns = {}
    for name in PARTS:
        ratio = divide(arrays[name], arrays["direct_effect"])
        ratio = np.where(sums.selected, ratio, np.nan)
        with warnings.catch_warnings():  # a head without any value is NaN, which is meant
            warnings.simplefilter("ignore", RuntimeWarning)
            clipped = np.nanmean(np.clip(ratio, 0, 1), axis=(0, 1))
            quantiles = np.nanquantile(ratio.reshape(-1, ratio.shape[-1]), QUANTILES, axis=0)
        columns[f"{name}_share_clipped"] = clipped
        for level, values in zip(QUANTILES, quantiles, strict=True):
            columns[f"{name}_share_q{round(100 * level):02d}"] = values
    return columns


def _head_rows(
    keys: Mapping[str, str],
    columns: Mapping[str, Float[np.ndarray, " head"]],
    sums: PromptSums,
    layers: int,
    n_heads: int,
) -> pl.DataFrame:
    layer, head = np.divmod(np.arange(layers * n_heads), n_heads)
    counts = {
        "layer": layer,
        "head": head,
        "n_tokens": sums.selected.sum((0, 1)),
        "n_prompts": np.full(layers * n_heads, len(sums.selected)),
    }
    integers = {name: pl.Series(values, dtype=pl.Int32) for name, values in counts.items()}
    table = pl.DataFrame(integers | {name: pl.Series(v) for name, v in columns.items()})
    return table.select(*(pl.lit(v).alias(k) for k, v in keys.items()), pl.all())


def _depth_rows(
    keys: Mapping[str, str],
    estimates: Mapping[str, Float[np.ndarray, "resample head"]],
    sums: PromptSums,
    layers: int,
    n_heads: int,
) -> pl.DataFrame:
    """Quarters of the layers, as even as they go; a model of fewer than four layers has fewer."""
    groups = np.repeat(np.arange(layers) * len(GROUPS) // layers, n_heads)
    present = [index for index in range(len(GROUPS)) if (groups == index).any()]
    means = {
        name: np.stack(
            [np.nanmean(values[:, groups == index], axis=1) for index in present], axis=1
        )
        for name, values in estimates.items()
    }
    table = pl.DataFrame(
        {
            "depth": [GROUPS[index] for index in present],
            "n_heads": [int((groups == index).sum()) for index in present],
            "n_tokens": [int(sums.selected[..., groups == i].any(2).sum()) for i in present],
            "n_prompts": [len(sums.selected)] * len(present),
            **_headline(means),
        }
    )
    return table.select(*(pl.lit(v).alias(k) for k, v in keys.items()), pl.all())


def findings(depth: pl.DataFrame, errors: Mapping[str, float]) -> str:
    """What a study found, as Markdown: top tokens by depth, then the last layers by ablation."""
    top = depth.filter(selection="top")
    first = "resample" if "resample" in top["ablation"] else top["ablation"][0]
    worst = ", ".join(f"{name} {value:.1e}" for name, value in errors.items())
    return "\n".join(
        [
            f"Self-repair under {first} ablation on each head's top 2 % of tokens, mean over heads, "
            "in logits; shares are of the direct effect; 95 % intervals over prompts:",
            "",
            *_rows_of(top.filter(ablation=first), "depth"),
            "",
            "The same for the last quarter of the layers under each ablation:",
            "",
            *_rows_of(top.filter(depth=GROUPS[-1]), "ablation"),
            "",
            f"Largest errors of the sums, in logits: {worst}.",
            "",
        ]
    )


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
