"""Tables of iterative inference (E11, docs/method.md section 5), from its gathered shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float

from ..errors import InputError
from ..vocabulary import FED_BACK, SELECTIONS, TOP, Head
from .bootstrap import divide, interval, mean_over_heads, prompt_weights, resampled_totals
from .instances import joined
from .labels import labelled
from .summaries import summary, summary_table

# What is added to a layer's input: the head's own output, or one of the controls.
OWN, *CONTROLS = FED_BACK


def self_repression_table(
    shards: Sequence[Mapping[str, Any]],
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
        raise InputError(
            "iterative inference: no head of the second half has a top token in the prompts that tokens"
            " are drawn from; raise experiments.iterative_prompts"
        )
    rows = joined(shards)
    weights = prompt_weights(n_prompts, resamples, seed=seed)
    tables, slopes = [], []
    for index, (layer, head) in enumerate(heads):
        here = rows["head"] == index
        slopes.append(_slopes({name: values[here] for name, values in rows.items()}, weights))
        keys: dict[str, str | int] = {"model": model, "layer": layer, "head": head}
        counts = {"n_tokens": int(here.sum()), "n_prompts": len(np.unique(rows["prompt"][here]))}
        tables.append(
            labelled(_slope_rows(slopes[-1], scalings, prompts=counts["n_prompts"]), keys, counts)
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


def _slope_rows(
    slopes: Float[np.ndarray, "resample kind scaling"], scalings: Sequence[float], *, prompts: int
) -> pl.DataFrame:
    """Of one head with tokens in so many prompts: a row per kind of added vector and scaling."""
    kind, scaling = np.indices(slopes.shape[1:])
    value, low, high = interval(slopes, prompts=prompts)
    return pl.DataFrame(
        {
            "kind": [FED_BACK[index] for index in kind.ravel()],
            "scaling": np.array(scalings, dtype=float)[scaling.ravel()],
            "slope": value.ravel(),
            "slope_low": low.ravel(),
            "slope_high": high.ravel(),
        }
    )


def _slope_summaries(
    slopes: Float[np.ndarray, "resample kind scaling head"],
    scalings: Sequence[float],
    **keys: Any,
) -> list[dict[str, Any]]:
    """Over heads: mean slope, share below 1, and how far the own output's slope is from the controls'."""
    rows = []
    for at, scaling in enumerate(scalings):
        means = {}
        for slope, kind in zip(slopes[:, :, at].swapaxes(0, 1), FED_BACK, strict=True):
            means[kind] = mean_over_heads(slope)
            below = mean_over_heads(np.where(np.isnan(slope), np.nan, slope < 1))
            of_kind = {"experiment": "E11", "group": f"{kind} x{scaling:g}", **keys}
            rows.append(summary(means[kind], quantity="mean_slope", **of_kind))
            rows.append(summary(below, quantity="repressing_share", **of_kind))
        for control in CONTROLS:
            rows.append(
                summary(
                    means[OWN] - means[control],
                    experiment="E11",
                    quantity="slope_difference",
                    group=f"{OWN} - {control} x{scaling:g}",
                    **keys,
                )
            )
    return rows


def refeeding_table(
    shards: Sequence[Mapping[str, Any]], *, model: str, seed: int, resamples: int
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
    # [prompt, selection, pair of layers, sum] and [pair of layers, head, head of the next layer, sum]
    per_prompt = np.concatenate([shard["prompt_sums"] for shard in shards])
    per_pair = np.stack([shard["pair_sums"] for shard in shards]).sum(0)
    with_tokens = per_prompt[..., 0] > 0
    weights = prompt_weights(len(per_prompt), resamples, seed=seed)
    totals = np.tensordot(weights, per_prompt, axes=1)
    rows = []
    for index, selection in enumerate(SELECTIONS):
        rows += _correlations(
            totals[:, index],
            next_heads=per_pair.shape[2],
            model=model,
            experiment="E11",
            quantity="change_correlation",
            group=selection,
            with_tokens=with_tokens[:, index],
        )
    prompts = with_tokens[:, SELECTIONS.index(TOP)].sum(0)
    return labelled(_change_rows(per_pair, prompts), {"model": model}), summary_table(rows)


def _change_rows(
    sums: Float[np.ndarray, "pair head next_head sum"], n_prompts: np.ndarray
) -> pl.DataFrame:
    """Mean changes from their sums (tokens, re-fed change, change by ablation); n_prompts: per pair."""
    layer, head, next_head = np.indices(sums.shape[:3])
    count = sums[..., 0]
    integers = {
        "layer": layer,
        "head": head,
        "next_head": next_head,
        "n_tokens": count.astype(int),
        "n_prompts": n_prompts[layer],
    }
    columns = {name: pl.Series(v.ravel(), dtype=pl.Int32) for name, v in integers.items()}
    columns |= {
        name: pl.Series(divide(sums[..., place], count).ravel())
        for place, name in enumerate(("refeed_change", "ablation_change"), start=1)
    }
    order = ("layer", "head", "next_head", "refeed_change", "ablation_change")
    return pl.DataFrame(columns).select(*order, "n_tokens", "n_prompts")


def _correlations(
    totals: Float[np.ndarray, "resample pair sum"],
    *,
    with_tokens: Bool[np.ndarray, "prompt pair"],
    next_heads: int,
    **keys: Any,
) -> list[dict[str, Any]]:
    """Summary rows: Pearson's correlation pooled over pairs of layers (layer: null) and of each pair.

    totals: of tokens, x, y, x squared, y squared, and xy, with x the re-fed and y the ablation's
    change; every token is counted once for each of the next layer's heads. with_tokens: which prompts
    have any.
    """
    n, x, y, xx, yy, xy = np.moveaxis(totals, -1, 0)
    moments = np.stack([xy - divide(x * y, n), xx - divide(x * x, n), yy - divide(y * y, n)])
    moments = np.nan_to_num(moments)
    rows = []
    every_pair = (None, moments.sum(2), n[0].sum(), with_tokens.any(1))
    of_pairs = zip(range(n.shape[1]), np.moveaxis(moments, 2, 0), n[0], with_tokens.T, strict=True)
    for layer, (both, first, second), tokens, prompts in [every_pair, *of_pairs]:
        rows.append(
            summary(
                divide(both, np.sqrt(first * second)),
                layer=layer,
                n_prompts=int(prompts.sum()),
                n_tokens=round(tokens / next_heads),
                **keys,
            )
        )
    return rows
