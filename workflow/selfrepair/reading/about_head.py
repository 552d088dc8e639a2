"""What the tables say of one head, in sentences (docs/method.md sections 2 and 3). No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ..claims.judge import VALUE, estimate
from ..formats import Unit, listed
from ..tables.findings import FEW_PROMPTS
from ..vocabulary import ATTENTION_NORM, FINAL_NORM, HEAD, MLP, MLP_NORM, TOP_SHARE, bounded

Row = Mapping[str, Any]
TOP_TOKENS = f"top {100 * TOP_SHARE:g} %"
# How a sentence calls the terms of self-repair, and the kinds of parts in the map.
TERM_WORDS = {
    "from_heads": "other heads",
    "from_mlps": "MLPs",
    "from_post_norms": "post-norms",
    "from_norm": "the final norm's scale",
}
PART_WORDS = {
    HEAD: "head L{layer}H{head}",
    MLP: "the MLP of layer {layer}",
    ATTENTION_NORM: "the post-norm of layer {layer}'s attention",
    MLP_NORM: "the post-norm of layer {layer}'s MLP",
    FINAL_NORM: "the final norm",
}
# Parts of the map that a sentence names.
SHOWN_PARTS, SHOWN_NEURONS = 3, 3
NO_MAP = "Which later part makes up for it: not measured (no ablation of this study keeps a map)."


def stated(row: Row, column: str, unit: Unit = "logits") -> str:
    """A value with its interval, "0.39 [0.36, 0.42] logits", or "not measured"."""
    values = (row[name] for name in bounded(column))
    return estimate({**dict(zip(VALUE, values, strict=True)), "unit": unit})


def sign_of(row: Row, column: str) -> int:
    """1 or -1 where the whole interval is on one side of 0, else 0."""
    _, low, high = (row[name] for name in bounded(column))
    if low is None or high is None:
        return 0
    return (low > 0) - (high < 0)


def sentences(row: Row, others: Sequence[Row], terms: Sequence[str]) -> list[str]:
    """What the ablation of a head does and what makes up for it.

    row: of the head in `heads.parquet`, top tokens; others: the same under other ablations; terms: those
    that add up to self-repair in this model.
    """
    if row["n_tokens"] is None:
        return ["Not measured: the sweeps of this study left the head out (sweep.heads)."]
    if not row["n_tokens"]:
        return [f"Not measured: {row['ablation']} ablation of this head has no token."]
    lines = [
        f"On {row['n_tokens']:,} tokens from its {TOP_TOKENS}, in {row['n_prompts']:,} prompts, the head adds"
        f" {stated(row, 'direct_effect')} to the logit of the right next token (its direct effect). Under"
        f" {row['ablation']} ablation what replaces it adds {stated(row, 'ablated_direct_effect')}, and the"
        f" logit changes by {stated(row, 'delta_logit')}.",
        _repair(row),
        "The terms of self-repair, which add up to it: "
        + listed([f"{stated(row, name)} from {TERM_WORDS[name]}" for name in terms])
        + ".",
    ]
    if others:
        shown = [
            f"{stated(other, 'self_repair_share', 'share')} under {other['ablation']} ablation"
            for other in others
        ]
        lines.append(f"As a share of the direct effect self-repair is {listed(shown)}.")
    if row["n_prompts"] < FEW_PROMPTS:
        lines.append(f"Intervals that rest on fewer than {FEW_PROMPTS} prompts are too narrow.")
    return lines


def _repair(row: Row) -> str:
    """Self-repair in words that depend on its sign."""
    sign, amount = sign_of(row, "self_repair"), stated(row, "self_repair")
    share = f"{stated(row, 'self_repair_share', 'share')} of the direct effect"
    if sign_of(row, "direct_effect") <= 0:
        share = (
            "its direct effect is not above 0 with its whole interval, so a share of it says little"
        )
    said = {
        1: f"Later parts make up for {amount} ({share})",
        0: f"Self-repair is {amount} ({share}): the interval includes 0",
        -1: f"Later parts add to the loss: self-repair is {amount} ({share})",
    }[sign]
    over = stated(row, "over_corrected_share", "share")
    return (
        f"{said}. Of the tokens with a positive direct effect, the logit rises beyond its clean value on"
        f" {over} (over-correction)."
    )


def map_sentences(parts: pl.DataFrame, backups: pl.DataFrame) -> list[str]:
    """Which later parts do it. parts: rows of `repair_map.parquet`; backups: of `backup_heads.parquet`."""
    if parts.is_empty():
        return [NO_MAP]
    single = parts.filter(pl.col("n_components") == 1)
    most = single.filter(pl.col("low") > 0).sort("mean", descending=True).head(SHOWN_PARTS)
    least = single.filter(pl.col("high") < 0).sort("mean").head(1)
    does = f"the largest above 0 are {_parts(most)}" if most.height else "none is above 0"
    adds = f", the largest below 0 is {_parts(least)}" if least.height else ""
    lines = [
        "Changes of later parts' direct effects once the head is gone, of those whose whole interval is on one"
        f" side of 0: {does}{adds}. Of many parts the largest are larger by chance too."
    ]
    if backups.height:
        first = backups.sort("rank").row(0, named=True)
        lines.append(
            f"Later heads that back it up: {first['n_backups']}; earlier heads that it backs up itself:"
            f" {first['n_backed_up']}."
        )
    return lines


def _parts(rows: pl.DataFrame) -> str:
    named = []
    for row in rows.to_dicts():
        where = {"layer": row["component_layer"], "head": row["component_head"]}
        part = PART_WORDS[row["kind"]].format(**where)
        named.append(f"{part} ({estimate({**row, 'value': row['mean'], 'unit': 'logits'})})")
    return listed(named)


def neuron_sentences(summaries: pl.DataFrame, counts: pl.DataFrame) -> list[str]:
    """The neurons of a measured MLP that make up for the head, a line each MLP; none if none was measured.

    summaries: the head's rows of `neuron_summaries.parquet`; counts: of `neuron_counts.parquet`.
    """
    lines = []
    for (group,), rows in summaries.group_by("group", maintain_order=True):
        found = {row["quantity"]: row for row in rows.to_dicts()}
        mlp = counts.filter(pl.format("MLP {}", "mlp_layer") == group)
        names = [
            f"{row['neuron']} ({row['instances']} of {row['n_tokens']} tokens)"
            for row in mlp.sort("instances", descending=True).head(SHOWN_NEURONS).to_dicts()
        ]
        often = f" Most often among the ten: {listed(names)}." if names else ""
        lines.append(
            f"Neurons of the MLP of layer {str(group).removeprefix('MLP ')}:"
            f" each token's most repairing one makes up for {_share(found, 'best_neuron_share')} of the head's"
            f" direct effect, and on {_share(found, 'anti_erasure_share')} of the tokens it is anti-erasure: it"
            f" lowers the logit while the head is there, and less so once it is gone. Of their ten most"
            f" repairing neurons two tokens of different prompts have {_share(found, 'overlap')} in common.{often}"
        )
    return lines


def _share(found: Mapping[str, Row], quantity: str) -> str:
    row = found.get(quantity)
    return estimate({**row, "unit": "share"}) if row else "not measured"
