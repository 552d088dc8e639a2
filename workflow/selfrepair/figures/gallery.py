"""Every figure of the study by its number: what draws it, and what writes its caption."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import altair as alt

from .iterative import (
    caption_e11a,
    caption_e11b,
    refeeding,
    self_repression,
)
from .neurons import (
    caption_e7,
    caption_e8,
    caption_e9,
    caption_e10,
    neuron_counts,
    neuron_curve,
    neuron_ranks,
    top_neuron_effects,
)
from .published import published_against_measured, published_caption
from .tokens import (
    caption_e3,
    caption_e4,
    scale_ratio_histogram,
    tokens_effect_against_change,
)
from .whole_models import (
    breakdown_across_models,
    breakdown_by_head,
    caption_e1,
    caption_e2,
    caption_e5,
    caption_e6,
    caption_e12,
    effect_against_change,
    norm_share_by_depth,
    self_repair_by_depth,
)


@dataclass(frozen=True)
class Figure:
    """Both take the figure's tables, polars data frames, in the same order."""

    draw: Callable[..., alt.TopLevelMixin]
    caption: Callable[..., str]


FIGURES: dict[str, Figure] = {
    "E1": Figure(self_repair_by_depth, caption_e1),
    "E2": Figure(effect_against_change, caption_e2),
    "E3": Figure(tokens_effect_against_change, caption_e3),
    "E4": Figure(scale_ratio_histogram, caption_e4),
    "E5": Figure(norm_share_by_depth, caption_e5),
    "E6": Figure(breakdown_by_head, caption_e6),
    "E7": Figure(neuron_ranks, caption_e7),
    "E8": Figure(neuron_curve, caption_e8),
    "E9": Figure(top_neuron_effects, caption_e9),
    "E10": Figure(neuron_counts, caption_e10),
    "E11a": Figure(self_repression, caption_e11a),
    "E11b": Figure(refeeding, caption_e11b),
    "E12": Figure(breakdown_across_models, caption_e12),
    "published": Figure(published_against_measured, published_caption),
}
