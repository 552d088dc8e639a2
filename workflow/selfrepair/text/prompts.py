"""Reading the prompts of a model: all that a measurement needs to know of text."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import torch
from jaxtyping import Int
from torch import Tensor


def read_prompts(path: Path) -> tuple[Int[Tensor, "prompt position"], Int[Tensor, " prompt"]]:
    """The tokens of each prompt, and its resample partner (the number of another prompt).

    path: a table of prompts, as `windows.cut_prompts` makes it.
    """
    table = pl.read_parquet(path).sort("prompt")
    return torch.tensor(table["tokens"].to_list()), torch.tensor(table["donor"].to_list())
