"""Tables of the neurons that make up for a head (E7 to E10), from the shards of NeuronRepair.

E7 to E10: docs/method.md section 5. An instance is a head on one of its drawn top tokens.
"""

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
from ..vocabulary import NEURON_REGIONS, Head
from .bootstrap import divide, interval, mean_over_heads, prompt_weights, resampled_totals
from .instances import resampled_means
from .labels import labelled
from .summaries import summary, summary_table

# Shares of a head's direct effect that a neuron may repair (E7).
THRESHOLDS = (0.5, 0.1, 0.05, 0.025, 0.01)
# How many of the most repairing neurons two instances may have in common (E10).
TOP_NEURONS = 10
# Sums over instances in a shard; everything else has a row per instance.
POOLED = ("cumulative_share", "n_curves", "effect_counts")
# Experiment and quantity of each number with an interval, per head and as the mean over the heads.
HEADLINE = (
    ("E7", "best_neuron_share"),
    ("E8", "top_percent_share"),
    ("E9", "anti_erasure_share"),
    ("E10", "overlap"),
)


_KEYS: dict[str, Any] = {"model": pl.String} | dict.fromkeys(
    ("layer", "head", "mlp_layer"), pl.Int32
)
_SIZES: dict[str, Any] = dict.fromkeys(("n_tokens", "n_prompts"), pl.Int32)
# The tables of NeuronTables by name, without their summaries.
SCHEMAS: dict[str, dict[str, Any]] = {
    "ranks": {
        **_KEYS,
        "rank": pl.Int32,
        **dict.fromkeys(("threshold", "share", "low", "high"), pl.Float64),
        **_SIZES,
    },
    "curve": {
        **_KEYS,
        **dict.fromkeys(("rank_end", "n_neurons"), pl.Int32),
        **dict.fromkeys(("cumulative_share", "median_direct_effect"), pl.Float64),
        **_SIZES,
    },
    "top_neurons": {
        **_KEYS,
        **dict.fromkeys(("prompt", "position", "neuron"), pl.Int32),
        **dict.fromkeys(
            ("direct_effect", "ablated_direct_effect", "mlp_direct_effect"), pl.Float64
        ),
        "region": pl.String,
    },
    "counts": {**_KEYS, **dict.fromkeys(("neuron", "instances", "prompts"), pl.Int32), **_SIZES},
}


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

    effect, ablated: its direct effect before and after the ablation, c and a below, in logits.
    c < 0 and a <= c: it erases more. c < a <= 0: it erases less. c < 0 < a: its erasure is reversed.
    The last two are anti-erasure (docs/method.md section 3). c >= 0: it does not erase.
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
        raise InputError(
            "neurons: none of the chosen heads' top tokens lies in the prompts that tokens are drawn"
            " from; raise experiments.prompts"
        )
    rows, pooled = _joined(shards)
    weights = prompt_weights(n_prompts, resamples, seed=seed)
    tables: dict[str, list[pl.DataFrame]] = {}
    summaries: list[dict[str, Any]] = []
    for place, mlp in enumerate(mlps):
        found = []
        for index in range(len(heads)):
            sums = {name: values[index, place] for name, values in pooled.items()}
            instances = _instances(rows, index, place)
            found.append(_HeadInstances(instances, weights, reaches_mlp=bool(sums["n_curves"])))
            layer, head = heads[index]
            keys = {"model": model, "layer": layer, "head": head, "mlp_layer": mlp}
            for name, table in found[-1].tables(keys, _curve(sums, n_neurons)).items():
                tables.setdefault(name, []).append(table)
        summaries += _summaries(found, heads, model=model, group=f"MLP {mlp}")
    joined = {name: pl.concat(parts) for name, parts in tables.items()}
    return NeuronTables(**joined, summaries=summary_table(summaries))


def no_neuron_tables() -> NeuronTables:
    """The tables without a row: of a model whose MLPs have no neurons to measure."""
    tables = {name: pl.DataFrame(schema=schema) for name, schema in SCHEMAS.items()}
    return NeuronTables(**tables, summaries=summary_table([]))


def _joined(shards: Sequence[Mapping[str, Tensor]]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Over all shards: arrays with a row per instance, joined, and POOLED, summed."""
    names = [name for name in shards[0] if name not in POOLED]
    rows = {name: torch.cat([shard[name] for shard in shards]) for name in names}
    pooled = {name: torch.stack([shard[name] for shard in shards]).sum(0) for name in POOLED}
    return rows, pooled


def _instances(rows: Mapping[str, Tensor], index: int, place: int) -> dict[str, np.ndarray]:
    """The instances of one head, by its index; arrays with a second axis have the MLP there."""
    here = rows["head"] == index
    return {
        name: (values[here, place] if values.ndim > 1 else values[here]).numpy()
        for name, values in rows.items()
    }


@dataclass
class _HeadInstances:
    """The instances of one head, as one MLP reacts to them.

    rows: the arrays of NeuronRepair, for this head and MLP; reaches_mlp: whether the MLP can react
    to the head at all.
    """

    rows: dict[str, np.ndarray]
    weights: Float[np.ndarray, "resample prompt"]
    reaches_mlp: bool

    def __post_init__(self) -> None:
        self.n_tokens = len(self.rows["prompt"])
        self.n_prompts = len(np.unique(self.rows["prompt"]))
        clean, ablated = self.rows["neuron_effect"], self.rows["neuron_ablated_effect"]
        self.change = ablated.astype(float) - clean

    def tables(self, keys: Mapping[str, Any], curve: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """This head's rows of every table of NeuronTables."""
        sizes = {"n_tokens": self.n_tokens, "n_prompts": self.n_prompts}
        return {
            "ranks": labelled(self.ranks(), keys, sizes),
            "curve": labelled(curve, keys, sizes),
            "top_neurons": labelled(self.top_neurons(), keys),
            "counts": labelled(self.counts(), keys, sizes),
        }

    def total(self, values: Float[np.ndarray, "instance ..."]) -> np.ndarray:
        """Sum over instances in each resample of the prompts, [resample, *shape]."""
        return resampled_totals(values, self.rows["prompt"], self.weights)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean over instances in each resample of the prompts, [resample, *shape]."""
        return resampled_means(values.astype(float), self.rows["prompt"], self.weights)

    def ranks(self) -> pl.DataFrame:
        """E7: how often the N-th most repairing neuron repairs so much of the head's direct effect."""
        effect = self.rows["head_effect"].astype(float)[:, None, None]
        reached = self.change[..., None] >= np.array(THRESHOLDS) * effect
        shares = self.mean(reached & (self.change[..., None] > 0))
        share, low, high = interval(shares, prompts=self.n_prompts)
        rank, threshold = np.indices(share.shape)
        columns = {
            "rank": pl.Series(rank.ravel() + 1, dtype=pl.Int32),
            "threshold": np.array(THRESHOLDS)[threshold.ravel()],
            "share": share.ravel(),
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
        instance, rank = (self.change[:, :TOP_NEURONS] > 0).nonzero()
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
        """HEADLINE by its keys; all NaN for an MLP that cannot react to the head."""
        if not self.reaches_mlp:
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
        neuron is in a top 10 of prompt p, over TOP_NEURONS times the sum of w_p w_q n_p n_q.
        """
        instance, neuron = self._members()
        names, column = np.unique(neuron, return_inverse=True)
        counts = np.zeros((self.weights.shape[1], len(names)))
        np.add.at(counts, (self.rows["prompt"][instance], column), 1.0)
        sizes = np.bincount(self.rows["prompt"], minlength=len(counts)).astype(float)
        squares = np.square(self.weights)
        common = np.square(self.weights @ counts).sum(1) - squares @ np.square(counts).sum(1)
        pairs = np.square(self.weights @ sizes) - squares @ np.square(sizes)
        return divide(common, TOP_NEURONS * pairs)


def _summaries(
    found: Sequence[_HeadInstances], heads: Sequence[Head], **keys: Any
) -> list[dict[str, Any]]:
    """A row for each headline number of each head, then of the mean over the heads."""
    numbers = [each.headline() for each in found]
    rows = []
    for (layer, head), each, values in zip(heads, found, numbers, strict=True):
        sizes = {"n_prompts": each.n_prompts, "n_tokens": each.n_tokens}
        rows += _number_rows(values, layer=layer, head=head, **sizes, **keys)
    means = {
        number: mean_over_heads(np.stack([values[number] for values in numbers], axis=1))
        for number in HEADLINE
    }
    prompts = np.unique(np.concatenate([each.rows["prompt"] for each in found]))
    n_tokens = sum(each.n_tokens for each in found)
    return rows + _number_rows(means, n_prompts=len(prompts), n_tokens=n_tokens, **keys)


def _number_rows(
    values: Mapping[tuple[str, str], Float[np.ndarray, " resample"]], **keys: Any
) -> list[dict[str, Any]]:
    return [
        summary(estimates, experiment=experiment, quantity=quantity, **keys)
        for (experiment, quantity), estimates in values.items()
    ]


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
