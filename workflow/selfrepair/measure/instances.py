"""Instances: a head on one of its tokens, a row each, in one order whatever the batches were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def joined_instances(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The rows of all parts by column, sorted by `head`, then `prompt`, then `position`."""
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    order = np.lexsort([joined[name].numpy() for name in ("position", "prompt", "head")])
    return {name: values[torch.from_numpy(order)] for name, values in joined.items()}
