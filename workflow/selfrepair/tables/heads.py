"""Tables of self-repair and its terms, per head and by depth (docs/method.md sections 3 and 4)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float

from ..errors import InputError
from ..measure.selection import top_mask
from ..vocabulary import ALL, EFFECTS, SELECTIONS, SHARED_EFFECTS, TOP
from .bootstrap import PromptSums, divide, prompt_weights
from .depth import LayerMeans, depth_rows
from .estimates import Arrays, resampled_means, with_intervals
from .labels import labelled

# Per layer of a sweep: its arrays by name, [prompt, position, head].
LayerArrays = Sequence[Mapping[str, torch.Tensor]]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


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
        `over_corrected_share`, of tokens with a positive direct effect those whose logit rises. Each
        with `_low` and `_high` of its 95 % bootstrap interval over prompts. Quantiles of the
        unclipped per-token ratios without an interval.
        depth: the same for quarters of the layers, the second half and the last layer but one,
        averaged over their heads (a share is a ratio of those averages, a standard deviation the
        root of the averaged variance).
    Raises:
        InputError: no sweep, or a sample too small to have top tokens.
    """
    heads, depths = [], []
    for ablation, layers in sweeps.items():
        selections = _selections(layers[0])
        rows: dict[str, list[pl.DataFrame]] = {selection: [] for selection in selections}
        means: dict[str, list[LayerMeans]] = {selection: [] for selection in selections}
        for layer in range(len(layers)):
            tensors = layers[layer]
            arrays = _effects(tensors)
            weights = prompt_weights(len(arrays["direct_effect"]), resamples, seed=seed)
            for selection in selections:
                sums = PromptSums(weights, _selected(arrays, selection))
                means[selection].append(
                    LayerMeans(resampled_means(arrays, sums), np.asarray(sums.selected.any(2)))
                )
                columns = with_intervals(means[selection][-1].means) | _quantiles(arrays, sums)
                rows[selection].append(_rows(columns, sums, layer))
        for selection in selections:
            keys = {"model": model, "ablation": ablation, "selection": selection}
            heads.append(labelled(pl.concat(rows[selection]), keys))
            depths.append(depth_rows(keys, means[selection]))
    if not heads:
        raise InputError("no sweeps to decompose")
    return pl.concat(heads), pl.concat(depths)


def _effects(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """EFFECTS of a layer; from_post_norms, of which a model without post-norms stores nothing, as 0."""
    arrays = {name: tensors[name].double().numpy() for name in EFFECTS if name in tensors}
    zero = np.where(np.isnan(arrays["self_repair"]), np.nan, 0.0)
    return {"from_post_norms": zero} | arrays


def _selections(layer: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """What a sweep can be averaged over: top tokens alone if nothing else was swept (then NaN)."""
    return (TOP,) if bool(layer["self_repair"].isnan().any()) else SELECTIONS


def _selected(arrays: Arrays, selection: str) -> Bool[np.ndarray, "prompt position head"]:
    effects, measured = arrays["direct_effect"], ~np.isnan(arrays["self_repair"])
    if selection == ALL:
        return np.ones(effects.shape, dtype=bool)
    # A sweep of top tokens has said which they are; its clean pass may have rounded otherwise.
    return top_mask(torch.from_numpy(effects)).numpy() if measured.all() else measured


def _quantiles(arrays: Arrays, sums: PromptSums) -> dict[str, Float[np.ndarray, " head"]]:
    """Quantiles of the unclipped per-token ratios, whose mean has no finite expectation."""
    columns = {}
    for name in SHARED_EFFECTS:
        ratio = divide(arrays[name], arrays["direct_effect"])
        ratio = np.where(sums.selected, ratio, np.nan).reshape(-1, ratio.shape[-1])
        with warnings.catch_warnings():  # a head without any value is NaN, which is meant
            warnings.simplefilter("ignore", RuntimeWarning)
            quantiles = np.nanquantile(ratio, QUANTILES, axis=0)
        for level, values in zip(QUANTILES, quantiles, strict=True):
            columns[f"{name}_share_q{round(100 * level):02d}"] = values
    return columns


def _rows(
    columns: Mapping[str, Float[np.ndarray, " head"]], sums: PromptSums, layer: int
) -> pl.DataFrame:
    """A row per head of one layer: which it is, what it rests on, and its numbers."""
    prompts, _, n_heads = sums.selected.shape
    counts = {
        "layer": np.full(n_heads, layer),
        "head": np.arange(n_heads),
        "n_tokens": sums.selected.sum((0, 1)),
        "n_prompts": np.full(n_heads, prompts),
    }
    integers = {name: pl.Series(values, dtype=pl.Int32) for name, values in counts.items()}
    return pl.DataFrame(integers | {name: pl.Series(values) for name, values in columns.items()})
