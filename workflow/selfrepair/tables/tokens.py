"""What ablation does token by token: noise (E3) and the final norm's scale (E4).

E3, E4: docs/method.md section 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float
from torch import Tensor

from ..measure.selection import top_mask
from ..vocabulary import SELECTIONS, TOKEN_EFFECTS, TOKEN_REGIONS, TOP, Head
from .bootstrap import PromptSums, mean_over_heads, prompt_weights
from .labels import labelled
from .summaries import summary, summary_table


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
    arrays: Mapping[str, Tensor],
    heads: Sequence[Head],
    *,
    model: str,
    seed: int,
    resamples: int,
    first_position: int = 0,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """E3: every top token of the chosen heads under resample ablation, and the share of each region.

    Args:
        arrays: TOKEN_EFFECTS by name, [prompt, position, head], heads in the given order.
        first_position: tokens before it are left out (`text.prompts.first_position`).
    Returns:
        tokens: one row per top token of each head; summaries: the share of each region per head,
        on top tokens and on all tokens.
    """
    values = {name: arrays[name].double().numpy() for name in TOKEN_EFFECTS}
    region = regions(values["direct_effect"], values["delta_logit"])
    top = top_mask(arrays["direct_effect"], first_position=first_position).numpy()
    every = np.ones_like(top)
    every[:, :first_position] = False
    weights = prompt_weights(len(top), resamples, seed=seed)
    rows = []
    for selection in SELECTIONS:
        sums = PromptSums(weights, top if selection == TOP else every)
        rows += _region_shares(region, sums, heads, selection=selection, model=model)
    names = np.array(TOKEN_REGIONS)[region]
    tokens = _token_rows(top, heads, model, {**values, "region": names})
    return tokens, summary_table(rows)


def _region_shares(
    region: np.ndarray, sums: PromptSums, heads: Sequence[Head], *, selection: str, model: str
) -> list[dict[str, Any]]:
    """Summary rows: the share of a head's selected tokens that lie in each region."""
    counts = sums.selected.sum((0, 1))
    rows = []
    for index, name in enumerate(TOKEN_REGIONS):
        shares = sums.mean((region == index).astype(float))
        for estimates, (layer, head), count in zip(shares.T, heads, counts, strict=True):
            rows.append(
                summary(
                    estimates,
                    model=model,
                    experiment="E3",
                    quantity="region_share",
                    layer=layer,
                    head=head,
                    group=f"{selection}/{name}",
                    n_prompts=len(region),
                    n_tokens=int(count),
                )
            )
    return rows


def scale_table(
    ratios: Mapping[str, Tensor],
    direct_effect: Float[Tensor, "prompt position head"],
    heads: Sequence[Head],
    *,
    model: str,
    seed: int,
    resamples: int,
    first_position: int = 0,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """E4: S / S' on the top tokens of last-layer heads, and how often it is above 1.

    Args:
        ratios: per ablation S / S', [prompt, position, head].
        direct_effect: clean, which decides the top tokens; first_position: none is before it.
    Returns:
        scale_ratios: one row per ablation, head and top token; summaries: the share above 1 per
        ablation and head, and over all of the heads.
    """
    top = top_mask(direct_effect, first_position=first_position).numpy()
    sums = PromptSums(prompt_weights(len(top), resamples, seed=seed), top)
    tables, rows = [], []
    for ablation, ratio in ratios.items():
        values = {"ratio": ratio.double().numpy(), "direct_effect": direct_effect.numpy()}
        tables.append(labelled(_token_rows(top, heads, model, values), {"ablation": ablation}))
        rows += _shares_above_1(values["ratio"], sums, heads, ablation=ablation, model=model)
    return pl.concat(tables), summary_table(rows)


def _shares_above_1(
    ratio: Float[np.ndarray, "prompt position head"],
    sums: PromptSums,
    heads: Sequence[Head],
    *,
    ablation: str,
    model: str,
) -> list[dict[str, Any]]:
    """Summary rows: the share of top tokens with S / S' > 1, per head and as the mean over heads."""
    shares = sums.mean((ratio > 1).astype(float))
    each = [*zip(shares.T, heads, sums.selected.sum((0, 1)), strict=True)]
    over_heads = (mean_over_heads(shares), (None, None), sums.selected.any(2).sum())
    return [
        summary(
            estimates,
            model=model,
            experiment="E4",
            quantity="share_above_1",
            layer=layer,
            head=head,
            group=ablation,
            n_prompts=len(ratio),
            n_tokens=int(count),
        )
        for estimates, (layer, head), count in [*each, over_heads]
    ]


def _token_rows(
    top: Bool[np.ndarray, "prompt position head"],
    heads: Sequence[Head],
    model: str,
    values: Mapping[str, np.ndarray],
) -> pl.DataFrame:
    """A row per selected token, head by head; values: columns by name, as arrays like `top`."""
    index, prompt, position = np.moveaxis(top, 2, 0).nonzero()
    layer, head = np.array(heads).reshape(-1, 2)[index].T
    keys = {"layer": layer, "head": head, "prompt": prompt, "position": position}
    columns = {name: each[prompt, position, index] for name, each in values.items()}
    table = pl.DataFrame(
        {name: pl.Series(each, dtype=pl.Int32) for name, each in keys.items()}
        # polars takes words as a list only
        | {
            name: each.tolist() if each.dtype.kind == "U" else each
            for name, each in columns.items()
        }
    )
    return labelled(table, {"model": model})
