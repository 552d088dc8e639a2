"""Reading the prompts of a model: all that a measurement needs to know of text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Prompts:
    """The prompts of a sample.

    tokens: [prompt, position]; donors: each prompt's resample partner (the number of another prompt);
    bos_token: the beginning-of-sequence token that stands first in each, None where there is none.
    """

    tokens: Int[Tensor, "prompt position"]
    donors: Int[Tensor, " prompt"]
    bos_token: int | None

    @property
    def first_position(self) -> int:
        """The first position that may be selected."""
        return first_position(self.bos_token)


def first_position(bos_token: int | None) -> int:
    """The first position that may be selected: not that of a beginning-of-sequence token, which no
    resample ablation can change (docs/method.md section 1)."""
    return 0 if bos_token is None else 1


def read_prompts(path: Path) -> Prompts:
    """The prompts in a table that `windows.cut_prompts` made."""
    table = pl.read_parquet(path).sort("prompt")
    (bos_token,) = table["bos_token"].unique()
    return Prompts(
        torch.tensor(table["tokens"].to_list()), torch.tensor(table["donor"].to_list()), bos_token
    )
