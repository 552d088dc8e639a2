"""Made up maps of who repairs, their tables, from which E13 and E14 are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from selfrepair.tables.repair_map import backup_heads_table, repair_layers_table
from selfrepair.vocabulary import HEAD, MLP, components


def repair_sums(
    layers: int = 6,
    heads: int = 3,
    *,
    prompts: int = 22,
    post_norms: bool = False,
    noise: float = 0.05,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Sums of a map: one token a prompt; later MLPs repair more, the last one most; few heads do."""
    draw = np.random.default_rng(seed)
    parts = components(layers, heads, post_norms=post_norms)
    means = np.zeros((layers, heads, len(parts)))
    for layer in range(layers):
        for index, (kind, at, _) in enumerate(parts):
            if at > layer or (kind != HEAD and (at == layer or at < 0)):
                depth = (layer + 1) * (at + 1) / layers**2
                size = 0.4 * depth**3 if kind == MLP else 0.003
                means[layer, :, index] = size + draw.normal(0, 0.01 + 0.01 * depth, heads)
                if kind == HEAD:
                    means[layer, :, index] += (draw.random(heads) < 0.01) * draw.exponential(
                        0.1, heads
                    )
    shape = (layers, heads)
    sums = dict.fromkeys(("sums", "squares", "products"), np.zeros(means.shape))
    for _ in range(prompts):
        values = np.where(means == 0, 0.0, means + draw.normal(0, noise, means.shape))
        sums["sums"] = sums["sums"] + values
        sums["squares"] = sums["squares"] + values**2
        sums["products"] = sums["products"] + values
    counts = dict.fromkeys(("tokens", "tokens_squared", "prompts"), np.full(shape, float(prompts)))
    return sums | counts


def repair_layers(*ablations: str, model: str = "toy", **options: Any) -> pl.DataFrame:
    maps = {name: repair_sums(**options) for name in ablations or ("resample",)}
    return repair_layers_table(maps, model=model)


def backup_heads(*ablations: str, model: str = "toy", **options: Any) -> pl.DataFrame:
    maps = {name: repair_sums(**options) for name in ablations or ("resample",)}
    return backup_heads_table(maps, model=model)
