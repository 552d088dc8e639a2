"""Tables of the neurons that make up for a head (E7 to E10), from the shards of `neuron_repair`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import InputError
from ..measure.neuron_bins import group_ends, medians
from ..vocabulary import Head
from .bootstrap import (
    divide,
    interval,
    prompt_weights,
    resampled_totals,
)
from .summaries import summary, summary_table

THRESHOLDS = (0.5, 0.1, 0.05, 0.025, 0.01)
TOP = 10
# Sums over instances in a shard; everything else has a row per instance.
POOLED = ("cumulative_share", "n_curves", "effect_counts")
NEURON_REGIONS = ("erases more", "erases less", "erasure reversed", "adds more or less")


@dataclass
class NeuronTables:
    """The tables of E7 (ranks), E8 (curve), E9 (top_neurons), E10 (counts), and their summaries."""

    ranks: pl.DataFrame
    curve: pl.DataFrame
    top_neurons: pl.DataFrame
    counts: pl.DataFrame
    summaries: pl.DataFrame


def neuron_regions(
    effect: Float[np.ndarray, " instance"], ablated: Float[np.ndarray, " instance"]
) -> np.ndarray:
    """The region of a neuron on a token, an index into NEURON_REGIONS, by its direct effects.

    With clean effect c and ablated effect a: c < 0 and a <= c, it erases more (breakage); c < a <= 0,
    it erases less; c < 0 < a, its erasure is reversed (over-correction): both are anti-erasure; c >= 0,
    it does not erase.
    """
    return np.select([effect >= 0, ablated <= effect, ablated <= 0], [3, 0, 1], default=2)


def neuron_tables(
    shards: Sequence[Mapping[str, Tensor]],
    heads: Sequence[Head],
    mlps: Sequence[int],
    *,
    n_neurons: int,
    n_prompts: int,
    model: str,
    seed: int,
    resamples: int,
) -> NeuronTables:
    """All tables of the neuron experiments.

    Args:
        shards: the arrays of NeuronRepair, with prompts numbered over the whole sample.
        heads, mlps: what was measured, in order; n_neurons: neurons of an MLP.
    Raises:
        InputError: no instances.
    """
    if not sum(len(shard["head"]) for shard in shards):
        raise InputError("neurons: no instances; choose heads that have top tokens")
    rows, pooled = _joined(shards)
    weights = prompt_weights(n_prompts, resamples, seed=seed)
    tables: dict[str, list[pl.DataFrame]] = {}
    summaries: list[dict[str, Any]] = []
    for place, mlp in enumerate(mlps):
        of_mlp = {"model": model, "group": f"MLP {mlp}"}
        estimates = []
        for index, (layer, head) in enumerate(heads):
            sums = {name: values[index, place] for name, values in pooled.items()}
            one = _Head(_instances(rows, index, place), weights, seen=bool(sums["n_curves"]))
            keys = {"model": model, "layer": layer, "head": head, "mlp_layer": mlp}
            for name, table in one.tables(keys, _curve(sums, n_neurons)).items():
                tables.setdefault(name, []).append(table)
            estimates.append(one.headline())
            sizes = {"n_prompts": one.n_prompts, "n_tokens": one.n_tokens}
            summaries += _summaries(estimates[-1], layer=layer, head=head, **sizes, **of_mlp)
        means = {key: _mean_over_heads([each[key] for each in estimates]) for key in HEADLINE}
        sizes = {"n_prompts": len(np.unique(rows["prompt"])), "n_tokens": len(rows["prompt"])}
        summaries += _summaries(means, **sizes, **of_mlp)
    joined = {name: pl.concat(parts) for name, parts in tables.items()}
    return NeuronTables(**joined, summaries=summary_table(summaries))


def _joined(shards: Sequence[Mapping[str, Tensor]]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Instances of all shards, and their sums."""
    names = [name for name in shards[0] if name not in POOLED]
    rows = {name: torch.cat([shard[name] for shard in shards]) for name in names}
    pooled = {name: torch.stack([shard[name] for shard in shards]).sum(0) for name in POOLED}
    return rows, pooled


def _summaries(
    estimates: Mapping[tuple[str, str], np.ndarray], **keys: Any
) -> list[dict[str, Any]]:
    """A row for each headline number of a head or of all heads."""
    return [
        summary(values, experiment=experiment, quantity=quantity, **keys)
        for (experiment, quantity), values in estimates.items()
    ]


def _mean_over_heads(
    estimates: Sequence[Float[np.ndarray, " resample"]],
) -> Float[np.ndarray, " resample"]:
    """Over the heads that the MLP sees; a resample in which one of them has no value has none."""
    seen = [values for values in estimates if not np.isnan(values).all()]
    return np.asarray(np.mean(seen or estimates, axis=0))


# What has an interval, per head and as the mean over the chosen heads.
HEADLINE = (
    ("E7", "best_neuron_share"),
    ("E8", "top_percent_share"),
    ("E9", "anti_erasure_share"),
    ("E10", "overlap"),
)


def _instances(rows: Mapping[str, Tensor], index: int, place: int) -> dict[str, np.ndarray]:
    """Of one head; arrays that have a second axis have the MLP there."""
    here = rows["head"] == index
    return {
        name: (values[here, place] if values.ndim > 1 else values[here]).numpy()
        for name, values in rows.items()
    }


@dataclass
class _Head:
    """The instances of one head, as one MLP reacts to them; seen: whether it can see the head."""

    rows: dict[str, np.ndarray]
    weights: Float[np.ndarray, "resample prompt"]
    seen: bool

    def __post_init__(self) -> None:
        self.n_tokens = len(self.rows["prompt"])
        self.n_prompts = len(np.unique(self.rows["prompt"]))
        clean, ablated = self.rows["neuron_effect"], self.rows["neuron_ablated_effect"]
        self.change = ablated.astype(float) - clean

    def tables(self, keys: Mapping[str, Any], curve: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """This head's rows of every table of NeuronTables."""
        sizes = {"n_tokens": self.n_tokens, "n_prompts": self.n_prompts}
        return {
            "ranks": _with(keys, self.ranks(), sizes),
            "curve": _with(keys, curve, sizes),
            "top_neurons": _with(keys, self.top_neurons(), {}),
            "counts": _with(keys, self.counts(), sizes),
        }

    def total(self, values: Float[np.ndarray, "instance ..."]) -> np.ndarray:
        """Sum over instances in each resample of the prompts, [resample, *shape]."""
        return resampled_totals(values, self.rows["prompt"], self.weights)

    def mean(self, values: np.ndarray) -> np.ndarray:
        counts = self.total(np.ones(self.n_tokens))
        totals = self.total(values.astype(float))
        shape = counts.reshape(-1, *(1,) * (totals.ndim - 1))
        return divide(totals, np.broadcast_to(shape, totals.shape))

    def ranks(self) -> pl.DataFrame:
        """E7: how often the N-th most repairing neuron repairs so much of the head's direct effect."""
        effect = self.rows["head_effect"].astype(float)[:, None, None]
        reached = self.change[..., None] >= np.array(THRESHOLDS) * effect
        shares = self.mean(reached & (self.change[..., None] > 0))
        low, high = _interval(shares)
        rank, threshold = np.indices(shares.shape[1:])
        columns = {
            "rank": pl.Series(rank.ravel() + 1, dtype=pl.Int32),
            "threshold": np.array(THRESHOLDS)[threshold.ravel()],
            "share": shares[0].ravel(),
            "low": low.ravel(),
            "high": high.ravel(),
        }
        return pl.DataFrame(columns)

    def top_neurons(self) -> pl.DataFrame:
        """E9: per instance its most repairing neuron."""
        clean, ablated = (
            self.rows[name][:, 0].astype(float)
            for name in ("neuron_effect", "neuron_ablated_effect")
        )
        regions = np.array(NEURON_REGIONS)[neuron_regions(clean, ablated)]
        keys = {"prompt": self.rows["prompt"], "position": self.rows["position"]}
        keys["neuron"] = self.rows["neuron"][:, 0]
        return pl.DataFrame(
            {name: pl.Series(values, dtype=pl.Int32) for name, values in keys.items()}
            | {
                "direct_effect": clean,
                "ablated_direct_effect": ablated,
                "mlp_direct_effect": self.rows["mlp_effect"].astype(float),
                "region": regions.tolist(),
            }
        )

    def _members(self) -> tuple[Int[np.ndarray, " member"], Int[np.ndarray, " member"]]:
        """Instance and neuron of everything that repairs and is among the top 10."""
        instance, rank = (self.change[:, :TOP] > 0).nonzero()
        return instance, self.rows["neuron"][instance, rank]

    def counts(self) -> pl.DataFrame:
        """E10: in how many instances and prompts each neuron is among the top 10."""
        instance, neuron = self._members()
        table = pl.DataFrame(
            {
                "neuron": pl.Series(neuron, dtype=pl.Int32),
                "prompt": pl.Series(self.rows["prompt"][instance], dtype=pl.Int32),
            }
        )
        return (
            table.group_by("neuron")
            .agg(
                instances=pl.len().cast(pl.Int32),
                prompts=pl.col("prompt").n_unique().cast(pl.Int32),
            )
            .sort("instances", "neuron", descending=[True, False])
        )

    def headline(self) -> dict[tuple[str, str], Float[np.ndarray, " resample"]]:
        """An MLP that cannot see the head says nothing about it: all NaN."""
        if not self.seen:
            return {key: np.full(len(self.weights), np.nan) for key in HEADLINE}
        clean = self.rows["neuron_effect"][:, 0]
        best = self.total(self.change[:, 0].clip(min=0))
        top, positive = (
            self.total(self.rows[name].astype(float))
            for name in ("top_percent_sum", "positive_sum")
        )
        values = [
            divide(best, self.total(self.rows["head_effect"].astype(float))),
            divide(top, positive),
            self.mean((clean < 0) & (self.change[:, 0] > 0)),
            self.overlap(),
        ]
        return dict(zip(HEADLINE, values, strict=True))

    def overlap(self) -> Float[np.ndarray, " resample"]:
        """Mean share of the top 10 that two instances from different prompts have in common.

        Over all pairs of different prompts p, q: sum of w_p w_q M_p . M_q, with M_p how often each
        neuron is in a top 10 of prompt p, over TOP times the sum of w_p w_q n_p n_q.
        """
        instance, neuron = self._members()
        names, column = np.unique(neuron, return_inverse=True)
        counts = np.zeros((self.weights.shape[1], len(names)))
        np.add.at(counts, (self.rows["prompt"][instance], column), 1.0)
        sizes = np.bincount(self.rows["prompt"], minlength=len(counts)).astype(float)
        squares = np.square(self.weights)
        common = np.square(self.weights @ counts).sum(1) - squares @ np.square(counts).sum(1)
        pairs = np.square(self.weights @ sizes) - squares @ np.square(sizes)
        return divide(common, TOP * pairs)


def _interval(
    estimates: Float[np.ndarray, "resample ..."],
) -> tuple[np.ndarray, np.ndarray]:
    _, low, high = interval(estimates.reshape(len(estimates), -1))
    return low.reshape(estimates.shape[1:]), high.reshape(estimates.shape[1:])


def _curve(pooled: Mapping[str, Tensor], n_neurons: int) -> pl.DataFrame:
    """E8: cumulative share of the summed absolute change, most repairing neurons first."""
    shares = pooled["cumulative_share"].double() / pooled["n_curves"]
    return pl.DataFrame(
        {
            "rank_end": pl.Series(group_ends(n_neurons).numpy(), dtype=pl.Int32),
            "n_neurons": pl.Series([n_neurons] * len(shares), dtype=pl.Int32),
            "cumulative_share": shares.numpy(),
            "median_direct_effect": medians(pooled["effect_counts"]).numpy(),
        }
    )


def _with(keys: Mapping[str, Any], table: pl.DataFrame, sizes: Mapping[str, int]) -> pl.DataFrame:
    """The table with its keys in front and what it rests on behind."""

    def columns(values: Mapping[str, Any]) -> list[pl.Expr]:
        return [
            pl.lit(value, dtype=pl.String if isinstance(value, str) else pl.Int32).alias(name)
            for name, value in values.items()
        ]

    return table.select(*columns(keys), pl.all(), *columns(sizes))
