"""E11b: change of a head when it reads an earlier input, against its change under ablation.

Resample ablation, both in logits. Left: a point per head of layer l and head of layer l+1; right: the
correlation of the two changes for each pair of layers.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from ..errors import InputError
from ..formats import with_interval
from .plotting import (
    Span,
    across_rule,
    axis_limits,
    axis_notes,
    axis_scale,
    cloud,
    chart_of,
    count_of,
    counted_sample,
    crowded_panels,
    density_note,
    diagonal,
    edge_shape,
    finish,
    layer_axis,
    layer_colour,
    level_rule,
    logits_tip,
    n_outside,
    placed_on_both,
    plain_tip,
    summary_rows,
    table_rows,
)

COLUMNS = (
    *("model", "layer", "head", "next_head", "refeed_change", "ablation_change"),
    *("n_tokens", "n_prompts"),
)
SIDE = 380


def draw(refeeding: pl.DataFrame, summaries: pl.DataFrame) -> alt.HConcatChart:
    """The chart of one model.

    Raises:
        InputError: more than one model, a missing column, or no rows or no pooled correlation.
    """
    rows, pooled, pairs, missing = _rows(refeeding, summaries)
