"""E9: direct effect of each instance's most repairing neuron, clean against ablated.

An instance is one top token of one head; a neuron's repair is by how much its direct effect rises when
the head is ablated.
"""

from __future__ import annotations

import altair as alt
import polars as pl

from ..vocabulary import NEURON_REGIONS
from . import marks, words
from .axes import Span, axis_limits, placed
from .panels import NOT_MEASURED, about_neurons, heads_and_tokens, mlps, panel_per_head
from .rows import estimate, summary_rows, table_rows

EFFECTS = ("direct_effect", "ablated_direct_effect", "mlp_direct_effect")
COLUMNS = (
    *("model", "layer", "head", "mlp_layer", "prompt", "position", "neuron", "region"),
    *EFFECTS,
)
TITLE = "What the most repairing neurons do"
REGIONS = (
    "Left of zero: {} below the dashed line, {} above it, {} above zero; right of zero: {}".format(
        *NEURON_REGIONS
    )
)


def draw(top_neurons: pl.DataFrame, summaries: pl.DataFrame) -> alt.FacetChart:
    """One model, resample ablation, a panel per chosen head (and MLP), axes of one scale (logits);
    colour is the clean direct effect of the neuron's whole MLP."""
    rows, missing = _rows(top_neurons, summaries)
    limits = axis_limits(rows[EFFECTS[0]], rows[EFFECTS[1]], reach=0.5)
    x = Span(EFFECTS[0], "Neuron's direct effect, clean (logits)", limits)
    y = Span(EFFECTS[1], "The same, head ablated (logits)", limits)
    rows = placed(rows, x=x, y=y)
    drawn = marks.cloud_rows(rows, x, y, "panel")
    # Of points, not of a density's cells.
    dots = drawn.filter(pl.col("count").is_null()) if "count" in drawn else drawn
    title = ["MLP's direct effect,", "clean (logits)"]
    effect = "mlp_direct_effect"
    colour, unseen = marks.signed_colour(effect, title, dots[effect])
    tooltip = words.tips(rows, "prompt", "position", "mlp_layer", "neuron", *EFFECTS, "region")
    layers = [
        marks.rule(y=0.0),
        marks.rule(x=0.0),
        *marks.cloud(drawn, x, y, "panel", things="Instances", color=colour, tooltip=tooltip),
        marks.line_through_zero(1.0, x, y),
    ]
    return words.titled(
        marks.facets(layers, drawn, size=(280, 280)),
        TITLE,
        about_neurons(rows, words.tokens_per_head(rows, "mlp_layer")),
        "Point: the instance's most repairing neuron; dashed: no change; above the panel: each region's share",
        REGIONS,
        *marks.density_note(rows, "panel"),
        *unseen,
        *words.notes(rows, missing=missing),
    )


def caption(top_neurons: pl.DataFrame, summaries: pl.DataFrame) -> str:
    rows, _ = _rows(top_neurons, summaries)
    sample = words.tokens_per_head(rows, "mlp_layer")
    return (
        f"{marks.mark_of(rows, 'instance', 'panel')}: the neuron of {mlps(rows)} that repairs most on one token, for"
        f" {heads_and_tokens(rows, sample)}. Across: the neuron's direct effect on the logit of the"
        " token to predict, up: the same once the head is ablated; on the dashed line nothing changes."
        " Left of zero the neuron lowers the logit (it erases) and above the dashed line it does so"
        " less: this is anti-erasure, whose share of tokens is printed with its 95 % bootstrap"
        " interval over prompts; above zero it even raises the logit instead. Colour: the direct"
        " effect of the whole MLP before the ablation."
    )


def _rows(top_neurons: pl.DataFrame, summaries: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The instances, each with its panel's heading, which holds the shares; how many have no value."""
    about, share = ("E9", top_neurons, "top_neurons"), "anti_erasure_share"
    rows, missing = table_rows(*about, columns=COLUMNS, finite=EFFECTS[:2], empty=NOT_MEASURED)
    shares = summary_rows("E9", summaries, rows["model"][0], experiment="E9", quantity=share)

    def note(panel: pl.DataFrame) -> list[str]:
        layer, head, mlp = (panel[name][0] for name in ("layer", "head", "mlp_layer"))
        # The share of this MLP, or of the only one.
        own = shares.filter(pl.col("group").is_in(["", f"MLP {mlp}"]))
        anti_erasure = words.estimated(estimate(own, layer=layer, head=head))
        parts = {name: (panel["region"] == name).sum() / panel.height for name in NEURON_REGIONS}
        each = [f"{name} {100 * part:.0f} %" for name, part in parts.items()]
        return [
            f"anti-erasure: {anti_erasure} of {panel.height:,} instances",
            ", ".join(each[:2]),
            ", ".join(each[2:]),
        ]

    return panel_per_head(rows, note), missing
