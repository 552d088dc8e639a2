"""Tables of self-repair and its terms, per head and by depth (docs/method.md sections 3 and 4)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import polars as pl
from jaxtyping import Float

from ..errors import InputError
from ..vocabulary import Head, depth_groups
from .bootstrap import Estimates, prompt_weights
from .depth import DepthMeans
from .estimates import resampled_means, with_intervals
from .labels import labelled
from .swept import QUANTILES, LayerSums, SweptHeads

# What a row rests on.
COUNTS = ("n_tokens", "n_prompts")


def head_tables(
    sweeps: Mapping[str, SweptHeads],
    *,
    model: str,
    seed: int,
    resamples: int,
    ablated: Collection[Head] | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The main table, one row per (ablation, selection, layer, head), and a summary by depth.

    Args:
        sweeps: per ablation `swept.DrawnHeads` or `swept.SummedHeads`. If no tokens were drawn from all,
            there are no rows of all tokens.
        ablated: the heads that were; by default all.
    Returns:
        heads: means in logits; shares, unitless; `self_repair_sd`, the standard deviation over
        tokens in logits, and `self_repair_noise`, the same as a multiple of the mean;
        `over_corrected_share`, of tokens with a positive direct effect those whose logit rises. Each
        with `_low` and `_high` of its 95 % bootstrap interval over prompts. Quantiles of the
        unclipped per-token ratios without an interval. n_tokens: drawn tokens of the head, n_prompts:
        different prompts that these lie in; of a sweep over all tokens, the prompts of the sample. Of a head
        that was not ablated both are null and all else NaN.
        depth: the same for quarters of the layers, the second half and the last layer but one,
        averaged over their heads (a share is a ratio of those averages, a standard deviation the
        root of the averaged variance). n_tokens: different tokens selected for any of the heads. Of a group
        with a head that was not ablated n_tokens and n_prompts are null and all else NaN.
    Raises:
        InputError: no sweep.
    """
    heads, depths = [], []
    for ablation, swept in sweeps.items():
        weights = prompt_weights(swept.n_prompts, resamples, seed=seed)
        rows: dict[str, list[pl.DataFrame]] = {name: [] for name in swept.selections}
        by_depth = {name: DepthMeans(swept.n_layers) for name in swept.selections}
        for layer in range(swept.n_layers):
            for selection in swept.selections:
                found = swept.layer(layer, selection)
                means = resampled_means(found.sums, weights)
                by_depth[selection].add(layer, means)
                rows[selection].append(_rows(layer, found, means, swept.whole, ablated))
        for selection in swept.selections:
            keys = {"model": model, "ablation": ablation, "selection": selection}
            heads.append(labelled(pl.concat(rows[selection]), keys))
            tokens = swept.group_tokens(selection)
            n_prompts = swept.n_prompts if swept.whole else None
            in_part = _ablated_in_part(heads[-1], ablated)
            depths.append(
                by_depth[selection].rows(keys, tokens, n_prompts=n_prompts, left_out=in_part)
            )
    if not heads:
        raise InputError("no sweeps to decompose")
    return pl.concat(heads), pl.concat(depths)


def _ablated_in_part(heads: pl.DataFrame, ablated: Collection[Head] | None) -> set[str]:
    """The groups of layers with a head that was not ablated; heads: rows of one ablation and selection."""
    if ablated is None:
        return set()
    layers = {head[0] for head in heads.select("layer", "head").rows() if head not in ablated}
    groups = depth_groups(int(heads["layer"].max()) + 1)  # type: ignore[arg-type]
    return {name for name, group in groups.items() if layers & {*group}}


def _rows(
    layer: int,
    found: LayerSums,
    means: Mapping[str, Estimates],
    whole: bool,
    ablated: Collection[Head] | None,
) -> pl.DataFrame:
    """A row per head of one layer: which it is, what it rests on, and its numbers."""
    tokens, prompts = found.sums["tokens"], found.prompts_with_tokens
    columns = with_intervals(means, prompts=prompts) | _quantiles(found)
    counts = {
        "layer": np.full(len(prompts), layer),
        "head": np.arange(len(prompts)),
        "n_tokens": tokens.sum(0),
        "n_prompts": np.full(len(prompts), len(tokens)) if whole else prompts,
    }
    integers = {n: pl.Series(v.astype(np.int32), dtype=pl.Int32) for n, v in counts.items()}
    rows = pl.DataFrame(integers | {name: pl.Series(values) for name, values in columns.items()})
    if ablated is None:
        return rows
    known = pl.Series([(layer, head) in ablated for head in range(len(prompts))])
    return rows.with_columns(pl.when(known).then(name).alias(name) for name in COUNTS)


def _quantiles(found: LayerSums) -> dict[str, Float[np.ndarray, " head"]]:
    """Columns of the quantiles of per-token ratios, whose mean has no finite expectation."""
    return {
        f"{name}_share_q{round(100 * level):02d}": values
        for name, quantiles in found.quantiles.items()
        for level, values in zip(QUANTILES, quantiles, strict=True)
    }
