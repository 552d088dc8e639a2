"""Tables of iterative inference (E11), from the shards of `feed_back` and `refeed`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..vocabulary import FED_BACK, SELECTIONS, Head
from .bootstrap import (
    divide,
    interval,
    prompt_weights,
    resampled_totals,
)
from .summaries import summary, summary_table


def self_repression_table(
    shards: Sequence[Mapping[str, Tensor]],
    heads: Sequence[Head],
    scalings: Sequence[float],
    *,
    n_prompts: int,
    model: str,
    seed: int,
    resamples: int,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """E11a: slope of the new on the old direct effect, per head, kind of added vector and scaling.

    The slope is that of a line through the origin, sum(new x old) / sum(old^2) over the head's
    tokens: what becomes of the direct effect, on weighted average. Below 1 the head represses itself.

    Args:
        shards: the arrays of FeedBack, with prompts numbered over the whole sample.
    Returns:
        table: one row per head, kind and scaling; summaries: mean slope and share of heads below 1
        per kind and scaling, and the mean difference of the own slope from either control's.
    Raises:
        InputError: no instances.
    """
    if not sum(len(shard["head"]) for shard in shards):
        raise InputError("iterative inference: no instances; take more prompts or tokens_per_head")
    rows = {name: torch.cat([shard[name] for shard in shards]).numpy() for name in shards[0]}
    weights = prompt_weights(n_prompts, resamples, seed=seed)
    tables, slopes = [], []
    for index, (layer, head) in enumerate(heads):
        here = rows["head"] == index
        found = _slopes({name: values[here] for name, values in rows.items()}, weights)
        slopes.append(found)
        value, low, high = interval(found.reshape(len(found), -1))
        kind, scaling = np.indices(found.shape[1:])
        columns = {
            "kind": [FED_BACK[i] for i in kind.ravel()],
            "scaling": np.array(scalings, dtype=float)[scaling.ravel()],
            "slope": value,
            "slope_low": low,
            "slope_high": high,
        }
        keys = {"layer": layer, "head": head}
        counts = {"n_tokens": int(here.sum()), "n_prompts": len(np.unique(rows["prompt"][here]))}
        tables.append(
            pl.DataFrame(columns).select(
                pl.lit(model).alias("model"),
                *(pl.lit(v, dtype=pl.Int32).alias(k) for k, v in keys.items()),
                pl.all(),
                *(pl.lit(v, dtype=pl.Int32).alias(k) for k, v in counts.items()),
            )
        )
    summaries = _slope_summaries(
        np.stack(slopes, -1),
        scalings,
        model=model,
        n_prompts=len(np.unique(rows["prompt"])),
        n_tokens=len(rows["head"]),
    )
    return pl.concat(tables), summary_table(summaries)


def _slopes(
    rows: Mapping[str, np.ndarray], weights: Float[np.ndarray, "resample prompt"]
) -> Float[np.ndarray, "resample kind scaling"]:
    old = rows["direct_effect"].astype(float)
    products = rows["new_direct_effect"].astype(float) * old[:, None, None]
    totals = [resampled_totals(values, rows["prompt"], weights) for values in (products, old**2)]
    return divide(totals[0], np.broadcast_to(totals[1][:, None, None], totals[0].shape))


def _slope_summaries(
    slopes: Float[np.ndarray, "resample kind scaling head"],
    scalings: Sequence[float],
    **keys: Any,
) -> list[dict[str, Any]]:
    rows = []
    for place, scaling in enumerate(scalings):
        means = {}
        for k, kind in enumerate(FED_BACK):
            group, values = f"{kind} x{scaling:g}", slopes[:, k, place]
            means[kind] = _mean_over(values)
            below = np.where(np.isnan(values), np.nan, values < 1)
            for quantity, estimates in (
                ("mean_slope", means[kind]),
                ("repressing_share", _mean_over(below)),
            ):
                rows.append(
                    summary(estimates, experiment="E11", quantity=quantity, group=group, **keys)
                )
        for control in FED_BACK[1:]:
            difference = means["own"] - means[control]
            group = f"own - {control} x{scaling:g}"
            rows.append(
                summary(
                    difference, experiment="E11", quantity="slope_difference", group=group, **keys
                )
            )
    return rows


def _mean_over(values: Float[np.ndarray, "resample head"]) -> Float[np.ndarray, " resample"]:
    """Mean over the heads that have a value; NaN if none has."""
    known = ~np.isnan(values)
    return divide(np.where(known, values, 0.0).sum(1), known.sum(1).astype(float))


def refeeding_table(
    shards: Sequence[Mapping[str, Tensor]], *, model: str, seed: int, resamples: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """E11b: mean changes of each head of the next layer, and how they correlate.

    Args:
        shards: the arrays of Refeed.
    Returns:
        table: one row per ablated head and head of the next layer, mean changes in logits over the
        ablated head's top tokens; summaries: Pearson's correlation of the two changes over tokens,
        ablated heads and heads of the next layer, for each pair of layers, and pooled (covariances
        and variances within pairs, summed).
    """
    per_prompt = torch.cat([shard["prompt_sums"] for shard in shards]).numpy()
    pairs = torch.stack([shard["pair_sums"] for shard in shards]).sum(0).numpy()
    layer, head, next_head = np.indices(pairs.shape[:3])
    count = pairs[..., 0]
    touched = [int((per_prompt[:, 0, at, 0] > 0).sum()) for at in range(len(pairs))]
    keys = {"layer": layer, "head": head, "next_head": next_head}
    table = pl.DataFrame(
        {name: pl.Series(values.ravel(), dtype=pl.Int32) for name, values in keys.items()}
        | {
            "refeed_change": divide(pairs[..., 1], count).ravel(),
            "ablation_change": divide(pairs[..., 2], count).ravel(),
            "n_tokens": pl.Series(count.astype(int).ravel(), dtype=pl.Int32),
            "n_prompts": pl.Series(np.array(touched)[layer.ravel()], dtype=pl.Int32),
        }
    ).select(pl.lit(model).alias("model"), pl.all())
    weights = prompt_weights(len(per_prompt), resamples, seed=seed)
    totals = np.tensordot(weights, per_prompt, axes=1)
    rows = []
    for place, selection in enumerate(SELECTIONS):
        n, x, y, xx, yy, xy = np.moveaxis(totals[:, place], -1, 0)
        moments = [xy - divide(x * y, n), xx - divide(x * x, n), yy - divide(y * y, n)]
        moments = [np.nan_to_num(moment) for moment in moments]
        pooled = [moment.sum(1) for moment in moments]
        each = [[moment[:, at] for moment in moments] for at in range(len(pairs))]
        counts = [n[0].sum(), *n[0]]
        for at, (moment, tokens) in enumerate(zip([pooled, *each], counts, strict=True)):
            both, first, second = moment
            rows.append(
                summary(
                    divide(both, np.sqrt(first * second)),
                    model=model,
                    experiment="E11",
                    quantity="change_correlation",
                    layer=None if at == 0 else at - 1,
                    group=selection,
                    n_prompts=len(per_prompt),
                    n_tokens=round(tokens / pairs.shape[2]),
                )
            )
    return table, summary_table(rows)
