"""What the tables say of a model and of a study, in sentences. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ..claims.claims import NOT_SUPPORTED, SUPPORTED, UNDECIDED
from ..claims.judge import estimate
from ..claims.overview import overview
from ..formats import listed
from ..vocabulary import LAST_BUT_ONE, QUARTERS, SECOND_HALF
from .about_head import TERM_WORDS, TOP_TOKENS, Row, stated

NO_CLAIMS = "Claims of the paper: not judged yet; `make study` ends with them."
NO_NEURONS = "Single neurons: not measured in this model."


def last_layers(depth: pl.DataFrame) -> str:
    """The last group of layers that every model has: of fewer than four layers there is no last quarter."""
    last = depth.filter(depth=QUARTERS[-1])
    return QUARTERS[-1] if last["model"].n_unique() == depth["model"].n_unique() else SECOND_HALF


def depth_sentences(rows: pl.DataFrame, terms: Sequence[str]) -> list[str]:
    """Self-repair by depth. rows: of one model, ablation and selection in `depth.parquet`."""
    groups = {row["depth"]: row for row in rows.to_dicts()}
    quarters = [
        stated(groups[name], "self_repair_share", "share") for name in QUARTERS if name in groups
    ]
    lines = [
        f"Under {rows['ablation'][0]} ablation, on tokens from each head's {TOP_TOKENS}, later parts make up"
        f" for {listed(quarters)} of the heads' direct effect, by quarter of the layers, first to last (ratios"
        " of means over heads)."
    ]
    half, last = groups[SECOND_HALF], groups.get(LAST_BUT_ONE)
    if half["n_tokens"] is None:
        return [*lines, f"Of the {SECOND_HALF} not every head was ablated, so it has no mean."]
    parts = [f"{stated(half, f'{name}_share', 'share')} from {TERM_WORDS[name]}" for name in terms]
    lines.append(
        f"In the {SECOND_HALF} it is {stated(half, 'self_repair_share', 'share')}: {listed(parts)}. Of the"
        f" effect that was removed {stated(half, 'restored_share', 'share')} comes back, and on"
        f" {stated(half, 'over_corrected_share', 'share')} of tokens the logit rises beyond its clean value"
        f" ({half['n_tokens']:,} different tokens in {half['n_prompts']:,} prompts)."
    )
    if last:
        norm = stated(last, "from_norm_share", "share")
        lines.append(f"In the {LAST_BUT_ONE} the final norm's scale makes up for {norm}.")
    return lines


def neuron_sentences(summaries: pl.DataFrame) -> list[str]:
    """The neurons of the last measured MLP, over all chosen heads; summaries: `neuron_summaries.parquet`."""
    pooled = summaries.filter(pl.col("layer").is_null())
    last = {row["quantity"]: {**row, "unit": "share"} for row in pooled.to_dicts()}
    if not last:
        return [NO_NEURONS]
    mlp = str(pooled["group"][-1]).removeprefix("MLP ")
    shares = {
        name: estimate(last[name]) if name in last else "not measured"
        for name in ("top_percent_share", "anti_erasure_share", "overlap")
    }
    return [
        f"Neurons of the MLP of layer {mlp}, over the chosen heads: the top 1 % of them have"
        f" {shares['top_percent_share']} of the positive changes; the most repairing one is anti-erasure on"
        f" {shares['anti_erasure_share']} of tokens; of their ten most repairing two tokens of different"
        f" prompts have {shares['overlap']} in common."
    ]


def map_sentences(share: str | None) -> list[str]:
    """share: the last MLP's of what all MLPs make up for heads of the second half (None: there is none)."""
    if share is None:
        return ["Which later layer makes up for which: not measured, or MLPs make up for nothing."]
    return [f"Of what all MLPs make up for heads of the {SECOND_HALF} the last MLP does {share}."]


def verdict_sentences(claims: pl.DataFrame) -> list[str]:
    """How many claims hold in a model, and which do not; claims: its rows of `claims.parquet`."""
    if claims.is_empty():
        return [NO_CLAIMS]
    named = {
        verdict: [
            f"{row['id']} {estimate(row)}" for row in claims.filter(verdict=verdict).to_dicts()
        ]
        for verdict in (SUPPORTED, UNDECIDED, NOT_SUPPORTED)
    }
    counts = [
        f"{len(rows)} {verdict}" + f" ({'; '.join(rows)})" * (verdict != SUPPORTED)
        for verdict, rows in named.items()
        if rows
    ]
    return [f"Claims of the paper, {claims.height} in all: {listed(counts)}."]


def study_sentences(depth: pl.DataFrame, claims: pl.DataFrame, over: pl.DataFrame) -> list[str]:
    """What several models have in common.

    depth: of all models in `depth.parquet`, one ablation and selection; claims, over: `claims.parquet` and
    `claims_over_models.parquet`, empty where nothing is judged yet.
    """
    group = last_layers(depth)
    last = depth.filter(depth=group).to_dicts()
    shares = [f"{stated(row, 'self_repair_share', 'share')} in {row['model']}" for row in last]
    lines = [
        f"Under {depth['ablation'][0]} ablation, on tokens from each head's {TOP_TOKENS}, later parts make up"
        f" for this share of the direct effect of heads in the {group} of the layers:"
        f" {'; '.join(shares)}."
    ]
    if claims.is_empty():
        return [*lines, NO_CLAIMS]
    shown = overview(claims, over)
    tallies = [f"{row['id']}: {row['tally']}" for row in shown["rows"]]
    lines += [f"Models that support each claim of the paper: {'; '.join(tallies)}."] * bool(tallies)
    lines += [f"{row['claim']} ({row['measured']}): {_judged(row)}." for row in shown["over"]]
    return lines + [_of_control(control) for control in shown["controls"]]


def _judged(row: Row) -> str:
    value = "" if row["value"] is None else f"{estimate(row)}, "
    return f"{value}{row['verdict']}; {row['remark']}"


def _of_control(control: Mapping[str, Any]) -> str:
    same = sum(row["same"] for row in control["rows"])
    return (
        f"{control['model']}, a control of {control['original']}: {same} of {len(control['rows'])} verdicts are"
        " the same."
    )
