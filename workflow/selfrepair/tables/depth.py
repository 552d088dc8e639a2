"""The table by depth: means over the heads of groups of layers (docs/method.md section 4)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import polars as pl
from jaxtyping import Int

from ..vocabulary import depth_groups
from .bootstrap import Estimates, divide
from .estimates import with_intervals
from .labels import labelled


class DepthMeans:
    """Means over the heads of each group of `depth_groups`, from one layer after the other.

    Only sums over heads are kept: the resamples of every head of a large model would not fit into memory.
    A mean is over the heads that have a value in a resample (`bootstrap.mean_over_heads`).
    """

    def __init__(self, n_layers: int) -> None:
        self.groups = depth_groups(n_layers)
        self._n_heads = dict.fromkeys(self.groups, 0)
        # Per group and name: sum over heads, and how many have a value, in each resample.
        self._sums: dict[str, dict[str, np.ndarray]] = {name: {} for name in self.groups}

    def add(self, layer: int, means: Mapping[str, Estimates]) -> None:
        """Take in a layer; means: of `estimates.resampled_means`."""
        sums = {}
        for name, estimates in means.items():
            known = ~np.isnan(estimates)
            sums[name] = np.stack([np.where(known, estimates, 0.0).sum(1), known.sum(1)])
        n_heads = next(iter(means.values())).shape[1]
        for group, layers in self.groups.items():
            if layer in layers:
                so_far = self._sums[group]
                self._sums[group] = {n: so_far.get(n, 0.0) + each for n, each in sums.items()}
                self._n_heads[group] += n_heads

    def rows(
        self,
        keys: Mapping[str, str],
        tokens: Int[np.ndarray, "prompt group"],
        *,
        n_prompts: int | None = None,
        left_out: Collection[str] = (),
    ) -> pl.DataFrame:
        """A row for each group; keys: what else the rows are about, as first columns.

        A mean is over heads, a share the ratio of such means, a standard deviation the root of the mean
        variance. tokens: how many of each prompt are selected for any head of the group; n_prompts: what
        the column says instead of the number of prompts that have such tokens. left_out: groups whose rows
        are without numbers.
        """
        prompts = (tokens > 0).sum(0)
        known = np.array([name not in left_out for name in self.groups])
        names = next(iter(self._sums.values()))
        means = {
            name: np.where(
                known,
                np.stack([divide(*sums[name]) for sums in self._sums.values()], axis=1),
                np.nan,
            )
            for name in names
        }
        table = pl.DataFrame(
            {
                "depth": list(self.groups),
                "n_heads": list(self._n_heads.values()),
                "n_tokens": tokens.sum(0).astype(np.int64),
                "n_prompts": prompts if n_prompts is None else np.full(len(prompts), n_prompts),
                **with_intervals(means, prompts=prompts),
            }
        )
        counts = [pl.when(pl.Series(known)).then(n).alias(n) for n in ("n_tokens", "n_prompts")]
        return labelled(table.with_columns(counts) if left_out else table, keys)
