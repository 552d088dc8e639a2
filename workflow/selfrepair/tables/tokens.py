"""What ablation does token by token: noise (E3) and the final norm's scale (E4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Bool, Float
from torch import Tensor

from ..measure.selection import top_mask
from ..vocabulary import SELECTIONS, TOKEN_EFFECTS, Head
from .bootstrap import PromptSums, prompt_weights
from .summaries import summary, summary_table

REGIONS = ("breakage", "under-repair", "repair", "over-correction")


def regions(
    direct_effect: Float[np.ndarray, "*shape"], delta_logit: Float[np.ndarray, "*shape"]
) -> np.ndarray:
    """The region of each token, an index into REGIONS, by the share of the direct effect made up for.

    With rho = 1 + delta_logit / direct_effect (1: the logit does not change, 0: it loses just the
    direct effect): breakage rho < 0, the logit loses more than the direct effect; under-repair
    0 <= rho < 1/2; repair 1/2 <= rho <= 1; over-correction rho > 1, the ablated head's loss is more
    than made up for. In the plane of direct effect and change of the logit the boundaries are
    y = -x, y = -x/2 and y = 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        share = 1 + delta_logit / direct_effect
    share = np.where(np.isnan(share), 1.0, share)  # no effect and no change
    return np.select([share < 0, share < 0.5, share <= 1], [0, 1, 2], default=3)


def token_table(
    arrays: Mapping[str, Tensor], heads: Sequence[Head], *, model: str, seed: int, resamples: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """E3: every top token of the chosen heads under resample ablation, and shares of the regions.

    Args:
        arrays: TOKEN_EFFECTS by name, [prompt, position, head], heads in the given order.
    Returns:
        tokens: one row per top token of each head; summaries: the share of each region per head,
        on top tokens and on all tokens.
    """
    values = {name: arrays[name].double().numpy() for name in TOKEN_EFFECTS}
    place = regions(values["direct_effect"], values["delta_logit"])
    top = top_mask(arrays["direct_effect"]).numpy()
    weights = prompt_weights(len(top), resamples, seed=seed)
    rows = []
    for selection in SELECTIONS:
        sums = PromptSums(weights, top if selection == "top" else np.ones_like(top))
        for index, region in enumerate(REGIONS):
            shares = sums.mean((place == index).astype(float))
            for i, (layer, head) in enumerate(heads):
                rows.append(
                    summary(
                        shares[:, i],
                        model=model,
                        experiment="E3",
                        quantity="region_share",
                        layer=layer,
                        head=head,
                        group=f"{selection}/{region}",
                        n_prompts=len(top),
                        n_tokens=int(sums.selected[..., i].sum()),
                    )
                )
    names = np.array(REGIONS)[place]
    tokens = _token_rows(top, heads, model, {**values, "region": names})
    return tokens, summary_table(rows)


def scale_table(
    ratios: Mapping[str, Tensor],
    direct_effect: Float[Tensor, "prompt position head"],
    heads: Sequence[Head],
    *,
    model: str,
    seed: int,
    resamples: int,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """E4: S / S' on the top tokens of last-layer heads, and how often it is above 1.

    Args:
        ratios: per ablation S / S', [prompt, position, head].
        direct_effect: clean, which decides the top tokens.
    Returns:
        scale_ratios: one row per ablation, head and top token; summaries: the share above 1 per
        ablation and head, and over all of the heads.
    """
    top = top_mask(direct_effect).numpy()
    sums = PromptSums(prompt_weights(len(top), resamples, seed=seed), top)
    tables, rows = [], []
    for ablation, ratio in ratios.items():
        values = {"ratio": ratio.double().numpy(), "direct_effect": direct_effect.numpy()}
        table = _token_rows(top, heads, model, values)
        tables.append(table.select(pl.lit(ablation).alias("ablation"), pl.all()))
        above = sums.mean((values["ratio"] > 1).astype(float))
        named = [*zip(above.T, heads, top.sum((0, 1)), strict=True)]
        pooled = (above.mean(1), (None, None), top.any(2).sum())
        for estimates, (layer, head), count in [*named, pooled]:
            rows.append(
                summary(
                    estimates,
                    model=model,
                    experiment="E4",
                    quantity="share_above_1",
                    layer=layer,
                    head=head,
                    group=ablation,
                    n_prompts=len(top),
                    n_tokens=int(count),
                )
            )
    return pl.concat(tables), summary_table(rows)


def _token_rows(
    top: Bool[np.ndarray, "prompt position head"],
    heads: Sequence[Head],
    model: str,
    values: Mapping[str, np.ndarray],
) -> pl.DataFrame:
    """A row per selected token, head by head."""
    index, prompt, position = np.moveaxis(top, 2, 0).nonzero()
    layer, head = np.array(heads).reshape(-1, 2)[index].T
    keys = {"layer": layer, "head": head, "prompt": prompt, "position": position}
    table = pl.DataFrame({name: pl.Series(v, dtype=pl.Int32) for name, v in keys.items()})
    columns = {name: v[prompt, position, index] for name, v in values.items()}
    return table.select(
        pl.lit(model).alias("model"),
        pl.all(),
        *(pl.Series(name, v.tolist() if v.dtype.kind == "U" else v) for name, v in columns.items()),
    )
