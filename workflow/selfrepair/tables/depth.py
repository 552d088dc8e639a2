"""The table by depth: means over the heads of groups of layers (docs/method.md section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool

from ..vocabulary import depth_groups
from .bootstrap import Estimates, mean_over_heads
from .estimates import with_intervals
from .labels import labelled


@dataclass
class LayerMeans:
    """What the table by depth takes from one layer of a sweep.

    means: of `resampled_means`; selected: tokens that are selected for any head of the layer.
    """

    means: Mapping[str, Estimates]
    selected: Bool[np.ndarray, "prompt position"]


def depth_rows(keys: Mapping[str, str], layers: Sequence[LayerMeans]) -> pl.DataFrame:
    """A row for each group of `depth_groups`; keys: what else the rows are about, as first columns.

    A mean is over heads, a share the ratio of such means, a standard deviation the root of the mean
    variance. n_tokens counts tokens that are selected for any head of the group.
    """
    groups = {
        name: [layers[index] for index in indices]
        for name, indices in depth_groups(len(layers)).items()
    }
    means = {
        name: np.stack([_over_group(name, group) for group in groups.values()], axis=1)
        for name in layers[0].means
    }
    n_heads = layers[0].means["direct_effect"].shape[1]
    selected = [np.any([layer.selected for layer in group], axis=0) for group in groups.values()]
    table = pl.DataFrame(
        {
            "depth": list(groups),
            "n_heads": [n_heads * len(group) for group in groups.values()],
            "n_tokens": [int(tokens.sum()) for tokens in selected],
            "n_prompts": [len(tokens) for tokens in selected],
            **with_intervals(means),
        }
    )
    return labelled(table, keys)


def _over_group(name: str, group: Sequence[LayerMeans]) -> np.ndarray:
    """The mean over all heads of these layers, [resample]."""
    return mean_over_heads(np.concatenate([layer.means[name] for layer in group], axis=1))
