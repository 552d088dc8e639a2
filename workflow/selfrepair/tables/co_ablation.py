"""Tables of heads ablated together (E16): is a later head a true backup of an earlier one?

A head backs up an earlier one if its direct effect rises when that is ablated (docs/method.md section 5).
True backups: ablating both takes more off the logit than the two ablations do one at a time, because what
the later head made up for is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from ..vocabulary import bounded
from .bootstrap import divide, interval, mean_over_heads, prompt_weights, resampled_totals
from .instances import joined, resampled_means
from .pairs import BACKUP, CONTROL, KINDS
from .summaries import summary, summary_table

# Means over a pair's tokens in the table, in logits, each with its interval.
MEANS = ("direct_effect", "delta_first", "delta_second", "delta_both", "second_change", "excess")

TABLE_SCHEMA: dict[str, Any] = (
    {"model": pl.String, "kind": pl.String}
    | dict.fromkeys(("layer", "head", "second_layer", "second_head"), pl.Int32)
    | dict.fromkeys([column for name in MEANS for column in bounded(name)], pl.Float64)
    | dict.fromkeys(("n_tokens", "n_prompts"), pl.Int32)
)


def co_ablation_tables(
    shards: Sequence[Mapping[str, Any]],
    pairs: Sequence[Mapping[str, Any]],
    *,
    n_prompts: int,
    model: str,
    seed: int,
    resamples: int,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """E16: each pair's means, and over all pairs of a kind what ablating both takes off beyond the two.

    Args:
        shards: the arrays of CoAblation; pairs: as `choose_pairs` gave them; n_prompts: how many the tokens
            were drawn from, numbered from 0.
    Returns:
        a row per pair that has tokens, columns as TABLE_SCHEMA; summaries: `excess` of each kind (mean over
        pairs), their `excess_difference`, and of backups the `share_lost`: minus the summed excess over the
        summed change of the second heads. Both without a row if there are no pairs.
    """
    if not pairs:
        return no_co_ablation_tables()
    rows = joined(shards)
    rows["excess"] = rows["delta_both"] - rows["delta_first"] - rows["delta_second"]
    values = np.stack([rows[name].astype(float) for name in MEANS], 1)
    weights = prompt_weights(n_prompts, resamples, seed=seed)
    found, estimates = [], {}
    for index, pair in enumerate(pairs):
        here = rows["pair"] == index
        if here.any():
            prompt = rows["prompt"][here]
            estimates[index] = resampled_means(values[here], prompt, weights)
            found.append(_row(pair, estimates[index], prompt, model))
    kind = np.array([pair["kind"] for pair in pairs])[rows["pair"]]
    return (
        pl.DataFrame(found, schema=TABLE_SCHEMA),
        summary_table(_summaries(rows, kind, estimates, pairs, weights, model)),
    )


def no_co_ablation_tables() -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables without a row: of a study that keeps no map, or of a model in which no head backs up another."""
    return pl.DataFrame(schema=TABLE_SCHEMA), summary_table([])


def _row(
    pair: Mapping[str, Any],
    estimates: Float[np.ndarray, "resample mean"],
    prompt: np.ndarray,
    model: str,
) -> dict[str, Any]:
    """The row of a pair: its means with their intervals."""
    (layer, head), (second_layer, second_head) = pair["first"], pair["second"]
    n_prompts = len(np.unique(prompt))
    row = {"model": model, "kind": pair["kind"], "layer": layer, "head": head}
    row |= {"second_layer": second_layer, "second_head": second_head}
    ends = interval(estimates, prompts=n_prompts)
    for name, *numbers in zip(MEANS, *ends, strict=True):
        row |= dict(zip(bounded(name), map(float, numbers), strict=True))
    return row | {"n_tokens": len(prompt), "n_prompts": n_prompts}


def _summaries(
    rows: Mapping[str, np.ndarray],
    kind: np.ndarray,
    estimates: Mapping[int, Float[np.ndarray, "resample mean"]],
    pairs: Sequence[Mapping[str, Any]],
    weights: Float[np.ndarray, "resample prompt"],
    model: str,
) -> list[dict[str, Any]]:
    """Summary rows over all pairs of a kind that have tokens."""
    at = MEANS.index("excess")
    over_pairs, summaries = {}, []

    def add(
        values: Float[np.ndarray, " resample"], here: np.ndarray, *, quantity: str, group: str
    ) -> None:
        row = summary(
            values,
            model=model,
            experiment="E16",
            quantity=quantity,
            group=group,
            n_prompts=len(np.unique(rows["prompt"][here])),
            n_tokens=int(here.sum()),
        )
        summaries.append(row)

    for each in KINDS:
        of_kind = [e[:, at] for index, e in estimates.items() if pairs[index]["kind"] == each]
        if of_kind:
            over_pairs[each] = mean_over_heads(np.stack(of_kind, 1))
            add(over_pairs[each], kind == each, quantity="excess", group=each)
    if len(over_pairs) == len(KINDS):
        difference = over_pairs[BACKUP] - over_pairs[CONTROL]
        everywhere = np.ones(len(kind), dtype=bool)
        group = f"{BACKUP} - {CONTROL}"
        add(difference, everywhere, quantity="excess_difference", group=group)
    if BACKUP in over_pairs:
        here = kind == BACKUP
        both = np.stack([-rows["excess"][here], rows["second_change"][here]], 1).astype(float)
        lost, gained = resampled_totals(both, rows["prompt"][here], weights).T
        add(divide(lost, gained), here, quantity="share_lost", group=BACKUP)
    return summaries
