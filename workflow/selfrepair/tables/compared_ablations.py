"""Tables of heads under every ablation (E17): is self-repair an artefact of inputs that the model never sees?

The harm of an ablation beyond that of the optimal constant is *spoofing* (docs/method.md section 2): harm
done by an input that the model never sees, not by what is missing. If self-repair were an answer to such
inputs, it would vanish under the optimal constant. A random change takes no direct effect away on average, so
its mean self-repair says nothing; what it takes away on each token it does, and the *compensation*, the slope
of self-repair on what is lost over tokens, can be compared with that of a real loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from ..ablations import RESAMPLE
from ..other_ablations import COMPARED, OPTIMAL, RANDOM, REMOVING
from ..vocabulary import TERMS, Head, bounded
from .bootstrap import divide, interval, mean_over_heads, prompt_weights
from .instances import joined, resampled_means
from .summaries import summary, summary_table

# Of a head's tokens, in logits.
MEANS = ("direct_effect", "ablated_direct_effect", "delta_logit", "self_repair", *TERMS)
# Shares and a slope of the same tokens; then of all prompts, in nats, and a share of them.
OF_TOKENS = ("restored_share", "compensation")
OF_PROMPTS = ("loss", "loss_above_optimal", "spoofing")
NUMBERS = (*MEANS, *OF_TOKENS, *OF_PROMPTS)

TABLE_SCHEMA: dict[str, Any] = (
    {"model": pl.String, "layer": pl.Int32, "head": pl.Int32, "ablation": pl.String}
    | dict.fromkeys([column for name in NUMBERS for column in bounded(name)], pl.Float64)
    | dict.fromkeys(("n_tokens", "n_prompts"), pl.Int32)
)

# Groups of the summaries that compare two ablations.
RATIO = f"{OPTIMAL} / {RESAMPLE.name}"
DIFFERENCE = f"{RESAMPLE.name} - {RANDOM}"

Estimates = Float[np.ndarray, " resample"]


def compared_tables(
    shards: Sequence[Mapping[str, Any]],
    heads: Sequence[Head],
    *,
    n_prompts: int,
    model: str,
    seed: int,
    resamples: int,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """E17: each head's means under each ablation, and numbers over all of these heads.

    Args:
        shards: the arrays of ComparedAblations; n_prompts: how many the tokens were drawn from, numbered from
            0, and the losses measured on.
    Returns:
        a row per head that has tokens and ablation, columns as TABLE_SCHEMA; summaries, means over heads
        unless said otherwise: of each ablation `self_repair`, `compensation` and `loss`; `restored_share`
        (ratio of means over heads) and `spoofing` (of losses) of each but the random change, and of
        the optimal one; `restored_ratio` of the optimal to the resampled one, if that is told from none;
        `compensation_difference` of resampling and the random change. Both without a row if no constants were trained, or no head has
        tokens.
    """
    if not heads:
        return no_compared_tables()
    rows, weights = joined(shards), prompt_weights(n_prompts, resamples, seed=seed)
    losses = _resampled_losses(rows.pop("loss"), weights)
    found, estimates = [], {}
    for at, head in enumerate(heads):
        here = rows["head"] == at
        if not here.any():
            continue
        for ablation in COMPARED:
            numbers = _of_head(rows, ablation, here, weights) | _of_losses(losses, at, ablation)
            estimates[at, ablation] = numbers
            found.append(_row(numbers, head, ablation, rows["prompt"][here], n_prompts, model))
    if not found:
        return no_compared_tables()
    sizes = len(np.unique(rows["prompt"])), n_prompts, len(rows["prompt"])
    return (
        pl.DataFrame(found, schema=TABLE_SCHEMA),
        summary_table(_summaries(estimates, sizes, model)),
    )


def no_compared_tables() -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables without a row: of a study that trains no constants."""
    return pl.DataFrame(schema=TABLE_SCHEMA), summary_table([])


def _resampled_losses(
    losses: Float[np.ndarray, "prompt head ablation"], weights: Float[np.ndarray, "resample prompt"]
) -> Float[np.ndarray, "resample head ablation"]:
    everywhere = np.arange(len(losses))
    return resampled_means(losses.astype(float), everywhere, weights)


def _of_head(
    rows: Mapping[str, np.ndarray],
    ablation: str,
    here: np.ndarray,
    weights: Float[np.ndarray, "resample prompt"],
) -> dict[str, Estimates]:
    """MEANS and OF_TOKENS of the tokens of a head under an ablation."""
    columns = {name: rows[f"{ablation}.{name}"][here].astype(float) for name in MEANS[1:]}
    columns = {"direct_effect": rows["direct_effect"][here].astype(float)} | columns
    lost, repaired = (
        columns["direct_effect"] - columns["ablated_direct_effect"],
        columns["self_repair"],
    )
    values = np.stack([*columns.values(), lost, lost * lost, lost * repaired], 1)
    *means, of_lost, of_square, of_product = resampled_means(
        values, rows["prompt"][here], weights
    ).T
    found = dict(zip(columns, means, strict=True))
    # A random change takes nothing away on average, so there is nothing that could be restored.
    share = divide(found["self_repair"], of_lost)
    found["restored_share"] = np.full_like(share, np.nan) if ablation == RANDOM else share
    found["compensation"] = divide(
        of_product - of_lost * found["self_repair"], of_square - of_lost * of_lost
    )
    return found


def _of_losses(
    losses: Float[np.ndarray, "resample head ablation"], at: int, ablation: str
) -> dict[str, Estimates]:
    """OF_PROMPTS of a head under an ablation."""
    own, optimal = (losses[:, at, COMPARED.index(name)] for name in (ablation, OPTIMAL))
    spoofed = divide(own - optimal, own)
    return {
        "loss": own,
        "loss_above_optimal": own - optimal,
        "spoofing": np.full_like(own, np.nan) if ablation == RANDOM else spoofed,
    }


def _row(
    numbers: Mapping[str, Estimates],
    head: Head,
    ablation: str,
    prompt: Int[np.ndarray, " instance"],
    n_prompts: int,
    model: str,
) -> dict[str, Any]:
    row: dict[str, Any] = {"model": model, "layer": head[0], "head": head[1], "ablation": ablation}
    row |= {"n_tokens": len(prompt), "n_prompts": len(np.unique(prompt))}
    for name, estimates in numbers.items():
        prompts = n_prompts if name in OF_PROMPTS else row["n_prompts"]
        ends = (
            None if np.isnan(end) else float(end) for end in interval(estimates, prompts=prompts)
        )
        row |= dict(zip(bounded(name), ends, strict=True))
    return row


def _summaries(
    estimates: Mapping[tuple[int, str], Mapping[str, Estimates]],
    sizes: tuple[int, int, int],
    model: str,
) -> list[dict[str, Any]]:
    """Summary rows over all heads that have tokens; sizes: prompts of tokens, of losses, and tokens."""
    of_tokens, of_losses, n_tokens = sizes
    rows = []

    def add(values: Estimates, quantity: str, group: str, *, of_harm: bool = False) -> None:
        row = summary(
            values,
            model=model,
            experiment="E17",
            quantity=quantity,
            group=group,
            n_prompts=of_losses if of_harm else of_tokens,
            n_tokens=None if of_harm else n_tokens,
        )
        rows.append(row)

    def over_heads(name: str, ablation: str) -> Estimates:
        return mean_over_heads(
            np.stack([each[name] for (_, of), each in estimates.items() if of == ablation], 1)
        )

    repaired = {name: over_heads("self_repair", name) for name in COMPARED}
    compensated = {name: over_heads("compensation", name) for name in COMPARED}
    harm = {name: over_heads("loss", name) for name in COMPARED}
    restored = {
        name: divide(
            repaired[name],
            over_heads("direct_effect", name) - over_heads("ablated_direct_effect", name),
        )
        for name in REMOVING
    }
    for ablation in COMPARED:
        add(repaired[ablation], "self_repair", ablation)
        add(compensated[ablation], "compensation", ablation)
        add(harm[ablation], "loss", ablation, of_harm=True)
    for ablation in REMOVING:
        add(restored[ablation], "restored_share", ablation)
        if ablation != OPTIMAL:
            share = divide(harm[ablation] - harm[OPTIMAL], harm[ablation])
            add(share, "spoofing", ablation, of_harm=True)
    ratio = divide(restored[OPTIMAL], restored[RESAMPLE.name])
    # Of a model without self-repair the ratio is of two numbers that may be anything.
    told = interval(restored[RESAMPLE.name], prompts=of_tokens)[1] > 0
    add(ratio if told else np.full_like(ratio, np.nan), "restored_ratio", RATIO)
    difference = compensated[RESAMPLE.name] - compensated[RANDOM]
    add(difference, "compensation_difference", DIFFERENCE)
    return rows
