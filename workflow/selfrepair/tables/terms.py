"""What a table of heads or by depth has to show: its main ablation, and which of self-repair's terms
(docs/method.md section 3). No torch."""

from __future__ import annotations

import polars as pl

from ..ablations import RESAMPLE
from ..vocabulary import TERMS

# Of models that normalise what a sublayer writes; exactly 0 of all others.
POST_NORMS = "from_post_norms"


def main_ablation(table: pl.DataFrame) -> str:
    """The ablation that is shown where only one is: the paper's (resample), else the first of the table.

    The table has a row, and a column `ablation`.
    """
    swept = table["ablation"]
    return RESAMPLE.name if RESAMPLE.name in swept else str(swept[0])


def models_with_post_norms(table: pl.DataFrame) -> list[str]:
    """The models, in order, of which from_post_norms is not exactly 0 in every row of a table of heads
    or by depth."""
    rows = table.filter(pl.col(POST_NORMS).fill_nan(0.0) != 0)
    return rows["model"].unique(maintain_order=True).to_list()


def terms_of(table: pl.DataFrame) -> tuple[str, ...]:
    """TERMS, without from_post_norms if no model of the table has it."""
    some = bool(models_with_post_norms(table))
    return tuple(name for name in TERMS if some or name != POST_NORMS)
