"""Who repairs: mean change of every later part's direct effect, per ablated head (docs/method.md section 5).

A map is given as the sums that a sweep keeps of it, by name (`measure.repair_map.RepairMap`, summed over
shards): `sums`, `squares`, `products` [layer, head, component], over prompts, of the change of a
component's direct effect on the ablated head's top tokens; `tokens`, `tokens_squared`, `prompts` [layer, head].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from ..vocabulary import FINAL_NORM, HEAD, OTHER_HEADS, SMALLEST_REPAIR, components
from .intervals import ratio_intervals
from .labels import labelled

# An ablation's sums, by name.
Sums = Mapping[str, np.ndarray]
# Backup heads that are listed for each head.
BACKUPS = 3

_KEYS: dict[str, Any] = {"model": pl.String, "ablation": pl.String} | dict.fromkeys(
    ("layer", "head"), pl.Int32
)
_NUMBERS: dict[str, Any] = dict.fromkeys(("mean", "low", "high"), pl.Float64)
_COUNTS: dict[str, Any] = dict.fromkeys(("n_tokens", "n_prompts"), pl.Int32)
_COMPONENT: dict[str, Any] = {"kind": pl.String, "component_layer": pl.Int32}
MAP_SCHEMA = (
    _KEYS | _COMPONENT | {"component_head": pl.Int32, "n_components": pl.Int32} | _NUMBERS | _COUNTS
)
BACKUP_SCHEMA = (
    _KEYS
    | dict.fromkeys(("n_backups", "n_backed_up"), pl.Int32)
    | dict.fromkeys(("rank", "backup_layer", "backup_head"), pl.Int32)
    | _NUMBERS
    | {"backs_up": pl.Boolean}
    | _COUNTS
)
LAYER_SCHEMA = {name: _KEYS[name] for name in ("model", "ablation", "layer")} | (
    _COMPONENT | {"mean": pl.Float64} | dict.fromkeys(("n_heads", "n_tokens"), pl.Int32)
)


def repair_map_table(maps: Mapping[str, Sums], *, model: str) -> pl.DataFrame:
    """The map in long form, a row per (ablation, ablated head, component), in logits.

    Of later heads only those whose mean is at least SMALLEST_REPAIR in size; the others are one row, `other
    heads`, with the sum of their means (and without an interval, which their covariances would be needed
    for). So the rows of each head still add up to its self-repair on these tokens: head and other heads
    to from_heads, mlp to from_mlps, both norms of sublayers to from_post_norms, final norm to from_norm.
    No row for a part that is not later than the head; no rows without maps.
    """
    tables: dict[str, pl.DataFrame] = {}
    for ablation, entries in _entries(maps):
        kept = entries.later[:, None] & ~entries.of_heads
        heads = (entries.later & entries.of_heads)[:, None]
        large = heads & (np.abs(entries.mean) >= SMALLEST_REPAIR)
        parts = [_rows(entries, kept | large), _other_heads(entries, heads & ~large)]
        rows = pl.concat(parts, how="diagonal_relaxed")
        tables[ablation] = rows.sort("layer", "head", maintain_order=True)
    return _joined(tables, model=model, schema=MAP_SCHEMA)


def backup_heads_table(maps: Mapping[str, Sums], *, model: str) -> pl.DataFrame:
    """The largest backup heads of each head, and how many others it backs up itself.

    A row per ablated head and rank, from 1, of the up to BACKUPS later heads with the largest mean;
    every head has the row of rank 1, with null for the backup of a head in the last layer or without
    tokens. A head
    `backs_up` another if its mean change is at least SMALLEST_REPAIR and the interval is above 0. n_backups:
    how many heads back up the ablated one; n_backed_up: how many heads the ablated one itself backs up.
    """
    tables: dict[str, pl.DataFrame] = {}
    for ablation, entries in _entries(maps):
        n_layers, n_heads = entries.tokens.shape
        heads = n_layers * n_heads  # the first components
        later = np.broadcast_to(entries.later[:, None, :heads], (n_layers, n_heads, heads))
        mean, low = entries.mean[..., :heads], entries.low[..., :heads]
        backs_up = later & (mean >= SMALLEST_REPAIR) & (low > 0)
        listed = later & ~np.isnan(mean)
        best = np.argsort(-np.where(listed, mean, -np.inf), axis=-1, kind="stable")[..., :BACKUPS]
        # Without any, a head's first row still says how many it backs up.
        known = np.take_along_axis(listed, best, -1)
        known[..., 0] = True
        layer, head, rank = np.nonzero(known)
        at = (layer, head, best[layer, head, rank])
        columns = {
            "layer": layer,
            "head": head,
            "n_backups": backs_up.sum(-1)[layer, head],
            "n_backed_up": backs_up.sum((0, 1)).reshape(n_layers, n_heads)[layer, head],
            "rank": rank + 1,
            "backs_up": backs_up[at],
            "listed": listed[at],
            **entries.columns(at),
        }
        names = {"component_layer": "backup_layer", "component_head": "backup_head"}
        of_backup = (*names.values(), *_NUMBERS, "backs_up")
        rows = pl.DataFrame(columns).rename(names)
        rows = rows.with_columns(pl.when("listed").then(name).alias(name) for name in of_backup)
        tables[ablation] = rows
    return _joined(tables, model=model, schema=BACKUP_SCHEMA)


def repair_layers_table(maps: Mapping[str, Sums], *, model: str) -> pl.DataFrame:
    """The map by layers: what the parts of each kind in each later layer make up for, in logits.

    A row per (ablation, ablated layer, kind, repairing layer): the sum over the repairing layer's parts
    of that kind (all of its heads, its MLP), as the mean over those heads of the ablated layer that
    have tokens. n_heads: how many those are; n_tokens: theirs together.
    """
    tables: dict[str, pl.DataFrame] = {}
    for ablation, entries in _entries(maps):
        parts = pl.DataFrame({"kind": entries.kind, "component_layer": entries.component_layer})
        # In order of the components, which stand together by kind and layer.
        groups = parts.unique(maintain_order=True)
        starts = np.flatnonzero(parts.to_struct().is_first_distinct())
        sums = np.add.reduceat(entries.mean, starts, axis=-1)
        known = entries.tokens > 0
        over_heads = np.where(known[..., None], sums, 0.0).sum(1)
        n_heads = known.sum(1)
        layer, group = np.nonzero(entries.later[:, starts])
        with np.errstate(invalid="ignore"):
            mean = over_heads[layer, group] / n_heads[layer]
        rows = groups[group].with_columns(
            layer=pl.Series(layer),
            mean=pl.Series(mean),
            n_heads=pl.Series(n_heads[layer]),
            n_tokens=pl.Series(entries.tokens.sum(1)[layer]),
            component_layer=_null_if_none("component_layer"),
        )
        tables[ablation] = rows
    return _joined(tables, model=model, schema=LAYER_SCHEMA)


@dataclass(frozen=True)
class _Entries:
    """A map's entries with their intervals, in logits, and what each component is (-1: no layer or head).

    later: the component comes after the attention of the ablated layer, so that it can change.
    """

    mean: Float[np.ndarray, "layer head component"]
    low: Float[np.ndarray, "layer head component"]
    high: Float[np.ndarray, "layer head component"]
    tokens: Int[np.ndarray, "layer head"]
    prompts: Int[np.ndarray, "layer head"]
    kind: list[str]
    component_layer: Int[np.ndarray, " component"]
    component_head: Int[np.ndarray, " component"]
    later: Bool[np.ndarray, "layer component"]

    @property
    def of_heads(self) -> Bool[np.ndarray, " component"]:
        return np.array([kind == HEAD for kind in self.kind])

    def columns(self, at: tuple[np.ndarray, np.ndarray, np.ndarray]) -> dict[str, Any]:
        """The columns of chosen entries, given as layers, heads and components."""
        layer, head, component = at
        return {
            "kind": np.array(self.kind)[component],
            "component_layer": self.component_layer[component],
            "component_head": self.component_head[component],
            "mean": self.mean[at],
            "low": self.low[at],
            "high": self.high[at],
            "n_tokens": self.tokens[layer, head],
            "n_prompts": self.prompts[layer, head],
        }


def _entries(maps: Mapping[str, Sums]) -> Iterator[tuple[str, _Entries]]:
    """Per ablation its entries; whether the model has post-norms shows in the number of components."""
    for ablation, sums in maps.items():
        n_layers, n_heads, n_components = sums["sums"].shape
        parts = components(n_layers, n_heads, post_norms=False)
        if len(parts) != n_components:
            parts = components(n_layers, n_heads, post_norms=True)
        kind, layers, heads = (list(values) for values in zip(*parts, strict=True))
        place, ablated = np.array(layers), np.arange(n_layers)[:, None]
        heads_later = np.array([each == HEAD for each in kind]) & (place > ablated)
        others_later = np.array([each != HEAD for each in kind]) & (place >= ablated)
        of_head = {
            name: np.broadcast_to(sums[name][..., None], sums["sums"].shape)
            for name in ("tokens", "tokens_squared", "prompts")
        }
        mean, low, high = ratio_intervals(
            *(sums[name].astype(float) for name in ("sums", "squares", "products")),
            tokens=of_head["tokens"].astype(float),
            tokens_squared=of_head["tokens_squared"].astype(float),
            prompts=of_head["prompts"].astype(int),
        )
        yield (
            ablation,
            _Entries(
                mean=mean,
                low=low,
                high=high,
                tokens=sums["tokens"].astype(int),
                prompts=sums["prompts"].astype(int),
                kind=kind,
                component_layer=place,
                component_head=np.array(heads),
                later=heads_later | others_later | np.array([each == FINAL_NORM for each in kind]),
            ),
        )


def _joined(
    tables: Mapping[str, pl.DataFrame], *, model: str, schema: Mapping[str, Any]
) -> pl.DataFrame:
    """The tables of all ablations under one another, with the columns of the schema; of none, no rows."""
    parts = [pl.DataFrame(schema=schema)]
    for ablation, rows in tables.items():
        named = labelled(rows, {"model": model, "ablation": ablation})
        parts.append(named.select(pl.col(name).cast(dtype) for name, dtype in schema.items()))
    return pl.concat(parts)


def _rows(entries: _Entries, kept: Bool[np.ndarray, "layer head component"]) -> pl.DataFrame:
    """A row for each entry that is kept."""
    layer, head, component = np.nonzero(kept)
    columns = entries.columns((layer, head, component))
    rows = pl.DataFrame({"layer": layer, "head": head, "n_components": 1} | columns)
    return rows.with_columns(_null_if_none("component_layer"), _null_if_none("component_head"))


def _other_heads(
    entries: _Entries, others: Bool[np.ndarray, "layer head component"]
) -> pl.DataFrame:
    """A row for each ablated head with the sum of its other entries, if it has any; no interval."""
    number = others.sum(-1)
    total = np.where(others, entries.mean, 0.0).sum(-1)
    layer, head = np.nonzero(number)
    none = pl.lit(None)
    return pl.DataFrame(
        {
            "layer": layer,
            "head": head,
            "n_components": number[layer, head],
            "kind": OTHER_HEADS,
            "mean": total[layer, head],
            "n_tokens": entries.tokens[layer, head],
            "n_prompts": entries.prompts[layer, head],
        }
    ).with_columns(component_layer=none, component_head=none, low=none, high=none)


def _null_if_none(column: str) -> pl.Expr:
    return pl.when(pl.col(column) >= 0).then(column).alias(column)
