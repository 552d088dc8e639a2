"""What ablation does token by token: noise (E3) and the final norm's scale (E4).

E3, E4: docs/method.md section 5. An instance is a head on one of the tokens that were drawn for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from ..errors import InputError
from ..vocabulary import ALL, TOKEN_EFFECTS, TOKEN_REGIONS, TOP, Head
from .bootstrap import mean_over_heads, prompt_weights
from .instances import joined, resampled_means
from .labels import labelled
from .summaries import summary, summary_table

# Which instances a selection has: those whose flag of this name is set.
DRAWN_FROM = {TOP: "top", ALL: "random"}


def regions(
    direct_effect: Float[np.ndarray, "*shape"], delta_logit: Float[np.ndarray, "*shape"]
) -> np.ndarray:
    """The region of each token, an index into TOKEN_REGIONS.

    It follows from rho = 1 + delta_logit / direct_effect, the share of the direct effect that is made
    up for (1: the logit does not change; 0: it loses just the direct effect). Breakage: rho < 0, the
    logit loses more than the direct effect. Under-repair: 0 <= rho < 1/2. Repair: 1/2 <= rho <= 1.
    Over-correction: rho > 1, more than the loss is made up for. In a plot of delta_logit against
    direct_effect the boundaries are the lines y = -x, y = -x/2 and y = 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        share = 1 + delta_logit / direct_effect
    share = np.where(np.isnan(share), 1.0, share)  # no effect and no change
    return np.select([share < 0, share < 0.5, share <= 1], [0, 1, 2], default=3)


def token_table(
    shards: Sequence[Mapping[str, Any]],
    heads: Sequence[Head],
    *,
    n_prompts: int,
    model: str,
    seed: int,
    resamples: int,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """E3: drawn top tokens of the chosen heads under resample ablation, and the share of each region.

    Args:
        shards: `tokens.*` of `measure.chosen_heads.chosen_arrays`, by the rest of the name, with
            prompts numbered over the whole sample.
        heads: the chosen ones, in order; n_prompts: how many the tokens were drawn from.
    Returns:
        tokens: one row per drawn top token of each head; summaries: the share of each region per head,
        on its drawn top tokens and on those drawn from all tokens.
    Raises:
        InputError: no head has a top token in these prompts.
    """
    rows = joined(shards)
    top = rows["top"] > 0
    _check_any(top)
    effects = {name: rows[name].astype(float) for name in TOKEN_EFFECTS}
    region = regions(effects["direct_effect"], effects["delta_logit"])
    weights = prompt_weights(n_prompts, resamples, seed=seed)
    shares = []
    for selection, flag in DRAWN_FROM.items():
        for place, (layer, head) in enumerate(heads):
            here = (rows["head"] == place) & (rows[flag] > 0)
            keys = {"model": model, "layer": layer, "head": head}
            shares += _region_shares(
                region[here], rows["prompt"][here], weights, selection=selection, **keys
            )
    columns = {**effects, "region": np.array(TOKEN_REGIONS)[region]}
    return _token_rows(rows, top, heads, model, columns), summary_table(shares)


def _check_any(top: Bool[np.ndarray, " instance"]) -> None:
    if not top.any():
        raise InputError(
            "chosen heads: none of their top tokens lies in the prompts that tokens are drawn from; "
            "raise experiments.prompts"
        )


def _region_shares(
    region: Int[np.ndarray, " instance"],
    prompt: Int[np.ndarray, " instance"],
    weights: Float[np.ndarray, "resample prompt"],
    *,
    selection: str,
    **keys: Any,
) -> list[dict[str, Any]]:
    """Summary rows: the share of one head's drawn tokens that lie in each region."""
    each = region[:, None] == np.arange(len(TOKEN_REGIONS))
    shares = resampled_means(each.astype(float), prompt, weights)
    return [
        summary(
            shares[:, index],
            experiment="E3",
            quantity="region_share",
            group=f"{selection}/{name}",
            n_prompts=len(np.unique(prompt)),
            n_tokens=len(region),
            **keys,
        )
        for index, name in enumerate(TOKEN_REGIONS)
    ]


def scale_table(
    shards: Sequence[Mapping[str, Any]],
    heads: Sequence[Head],
    *,
    n_prompts: int,
    model: str,
    seed: int,
    resamples: int,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """E4: S / S' on drawn top tokens of last-layer heads, and how often it is above 1.

    Args:
        shards: `last.*` of `measure.chosen_heads.chosen_arrays`; all else as for `token_table`.
    Returns:
        scale_ratios: one row per ablation, head and drawn top token; summaries: the share above 1 per
        ablation and head, and over all of the heads.
    Raises:
        InputError: as `token_table`.
    """
    rows = joined(shards)
    every = np.ones(len(rows["head"]), dtype=bool)
    _check_any(every)
    weights = prompt_weights(n_prompts, resamples, seed=seed)
    tables, shares = [], []
    for name in rows:
        kind, _, ablation = name.partition(".")
        if kind != "ratio":
            continue
        ratio = rows[name].astype(float)
        columns = {"ratio": ratio, "direct_effect": rows["direct_effect"]}
        tables.append(
            labelled(_token_rows(rows, every, heads, model, columns), {"ablation": ablation})
        )
        shares += _shares_above_1(rows, ratio, weights, heads, model=model, group=ablation)
    return pl.concat(tables), summary_table(shares)


def _shares_above_1(
    rows: Mapping[str, np.ndarray],
    ratio: Float[np.ndarray, " instance"],
    weights: Float[np.ndarray, "resample prompt"],
    heads: Sequence[Head],
    **keys: Any,
) -> list[dict[str, Any]]:
    """Summary rows: the share of top tokens with S / S' > 1, per head and as the mean over heads."""
    prompt, above = rows["prompt"], (ratio > 1).astype(float)
    of_head = [rows["head"] == place for place in range(len(heads))]
    shares = [resampled_means(above[here], prompt[here], weights) for here in of_head]
    tokens = [
        *(prompt[here] for here in of_head),
        np.unique(np.stack([prompt, rows["position"]]), axis=1)[0],  # one of several heads, once
    ]
    over_heads = mean_over_heads(np.stack(shares, axis=1))
    return [
        summary(
            estimates,
            experiment="E4",
            quantity="share_above_1",
            layer=layer,
            head=head,
            n_prompts=len(np.unique(prompts)),
            n_tokens=len(prompts),
            **keys,
        )
        for estimates, (layer, head), prompts in zip(
            [*shares, over_heads], [*heads, (None, None)], tokens, strict=True
        )
    ]


def _token_rows(
    rows: Mapping[str, np.ndarray],
    wanted: Bool[np.ndarray, " instance"],
    heads: Sequence[Head],
    model: str,
    columns: Mapping[str, np.ndarray],
) -> pl.DataFrame:
    """A row per wanted instance, head by head, with more columns by name, a value per instance."""
    order = np.lexsort([rows["position"], rows["prompt"], rows["head"]])
    order = order[wanted[order]]
    layer, head = np.array(heads).reshape(-1, 2)[rows["head"][order]].T
    keys = {"layer": layer, "head": head}
    keys |= {name: rows[name][order] for name in ("prompt", "position")}
    table = pl.DataFrame(
        {name: pl.Series(each, dtype=pl.Int32) for name, each in keys.items()}
        # polars takes words as a list only
        | {
            name: each[order].tolist() if each.dtype.kind == "U" else each[order]
            for name, each in columns.items()
        }
    )
    return labelled(table, {"model": model})
