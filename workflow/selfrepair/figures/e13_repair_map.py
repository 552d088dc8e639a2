"""E13: which later layer makes up for the heads of which layer, with its heads and with its MLP."""

from __future__ import annotations

import altair as alt
import polars as pl

from ..tables.terms import main_ablation
from ..vocabulary import ATTENTION_NORM, HEAD, MLP, MLP_NORM, second_half
from . import marks, words
from .rows import NotMeasured, check_columns, count_of, table_rows

TITLE = "Which later layer makes up for ablated heads"
COLUMNS = (
    *("model", "ablation", "layer", "kind", "component_layer", "mean", "n_heads", "n_tokens"),
)
PANELS = {
    HEAD: "Heads of the later layer, together",
    MLP: "MLP of the later layer",
    ATTENTION_NORM: "Post-norm of its attention",
    MLP_NORM: "Post-norm of its MLP",
}


def draw(repair_layers: pl.DataFrame) -> alt.FacetChart:
    """One model and ablation, top tokens, a panel each for heads and MLPs (and post-norms if there are
    any). Across: the layer of the ablated heads; up: the layer whose parts change. Colour: mean change of
    their direct effect, in logits, on one scale for all panels. Nothing where a part comes before the head."""
    rows, missing = _rows(repair_layers)
    colour_title = ["Mean change of", "direct effect", "(logits)"]
    # The few strongest layers are what the map is for: they are not to share their last colour.
    colour, unseen = marks.signed_colour(
        "mean", colour_title, rows["mean"], things="cells", keep=0.995, reach=1.0
    )
    n_layers = count_of(rows, "component_layer")
    empty = n_layers - rows["layer"].n_unique()
    layers = list(range(n_layers))
    axis = alt.Axis(ticks=False, labelAngle=0, labelOverlap="parity", labelSeparation=4)
    # All layers, also where one has no cell; the last on top.
    across, up = alt.Scale(domain=layers), alt.Scale(domain=layers, reverse=True)
    x = alt.X("layer:O", title="Layer of the ablated head", scale=across, axis=axis)
    y = alt.Y("component_layer:O", title="Later layer", scale=up, axis=axis)
    tooltip = words.tips(
        rows,
        layer="Layer of the ablated head",
        component_layer="Later layer",
        kind="Part",
        mean="Mean change (logits)",
        n_heads="Ablated heads",
        n_tokens="Tokens of all of them",
    )
    cells = alt.Chart().mark_rect(strokeWidth=0).encode(x=x, y=y, color=colour, tooltip=tooltip)
    share = last_mlp_share(rows)
    last = f"The last MLP's part of what all MLPs make up for ablated heads of the second half: {share}"
    return words.titled(
        marks.facets([cells], rows, size=(330, 330)),
        TITLE,
        f"{rows['model'][0]}, {rows['ablation'][0]} ablation, {words.FROM_TOP_TOKENS}: {_sample(rows)}",
        "Blue: the later part makes up for the head; orange: it adds to the loss; mean over the ablated"
        " layer's heads",
        *[last] * (share is not None),
        *[f"Layers without an ablated head: {empty} of {n_layers}"][:empty],
        *unseen,
        *words.notes(rows, missing=missing),
    )


def caption(repair_layers: pl.DataFrame) -> str:
    rows, _ = _rows(repair_layers)
    share, post_norms = last_mlp_share(rows), set(rows["kind"]) - {HEAD, MLP}
    scales = ", or by the post-norms that scale what they write" * bool(post_norms)
    last = (
        f" Of all that MLPs make up for the ablated heads of the second half of the layers, {share} is the last"
        " MLP's (a ratio of sums over those heads)."
    )
    return (
        f"Who repairs in {rows['model'][0]} under {rows['ablation'][0]} ablation: each head is ablated"
        f" on {words.FROM_LARGEST} ({_sample(rows)}), and a cell shows by how much the"
        " direct effect on the target token's logit then changes that is due to the heads (left) or the"
        f" MLP (right) of a later layer{scales}, as the mean over the heads of the ablated layer. Blue"
        " makes up for the lost head and orange adds to the loss; grey is no change, and there is no cell"
        " where a part comes before the ablated head. The sum up a column, over all panels, is what"
        " parts other than the final norm make up for a head of that layer."
        f"{last * (share is not None)}"
    )


def last_mlp_share(rows: pl.DataFrame) -> str | None:
    """What the last MLP restores, as a share of what all MLPs restore, over heads of the second half.

    None where MLPs restore nothing on the whole, so that there is nothing to have a share of.
    """
    last = count_of(rows, "component_layer") - 1
    halves = second_half(last + 1)
    mlps = rows.filter(pl.col("layer") >= halves.start, kind=MLP)
    total = pl.col("mean") * pl.col("n_heads")
    whole = mlps.select(total.sum()).item()
    part = mlps.filter(component_layer=last).select(total.sum()).item()
    return f"{100 * part / whole:.0f} %" if whole > 0 else None


def _sample(rows: pl.DataFrame) -> str:
    layers = rows.unique("layer")
    tokens, heads = words.amount(layers["n_tokens"]), words.amount(layers["n_heads"])
    return f"{tokens} tokens of a layer's {heads} head{'s' * (heads != '1')}"


def _rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The rows of one ablation whose parts are in a layer, with `panel`; how many have no value."""
    check_columns("E13", table, "repair_layers", COLUMNS)
    if table.is_empty():
        raise NotMeasured(words.NOT_MAPPED)
    rows, missing = table_rows(
        "E13",
        table.filter(pl.col("n_heads") > 0),
        "repair_layers",
        columns=COLUMNS,
        finite=["mean"],
        only={"ablation": [main_ablation(table)], "kind": list(PANELS)},
    )
    order = pl.col("kind").cast(pl.Enum(list(PANELS)))
    rows = rows.with_columns(panel=pl.col("kind").replace_strict(PANELS))
    return rows.sort(order, "layer", "component_layer"), missing
