"""E13: which later layer makes up for the heads of which layer, with its heads and with its MLP."""

from __future__ import annotations

import altair as alt
import polars as pl

from ..tables.terms import main_ablation
from ..vocabulary import ATTENTION_NORM, HEAD, MLP, MLP_NORM, second_half
from . import words
from .axes import Span
from .marks import colour_notes, facets, signed_colour
from .rows import count_of, models_of, table_rows
from .unmeasured import NOT_MAPPED, is_unmeasured, unmeasured

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
SIZE = 330
# Layers between the ticks of an axis, so that there are at most MOST_TICKS.
STEPS, MOST_TICKS = (1, 2, 5, 10, 20, 50, 100), 16


def draw(repair_layers: pl.DataFrame) -> alt.FacetChart | alt.Chart:
    """One model and ablation, top tokens, a panel each for heads and MLPs (and post-norms if there are
    any). Across: the layer of the ablated heads; up: the layer whose parts change. Colour: mean change of
    their direct effect, in logits, on one scale for all panels. Nothing where a part comes before the head.

    An empty table, of a study without a repair map: words that say so.

    Raises:
        InputError: more than one model, a column is missing, or none of the rows has a value.
    """
    if is_unmeasured("E13", repair_layers, "repair_layers", columns=COLUMNS):
        return unmeasured(TITLE, NOT_MAPPED)
    rows, missing = _rows(repair_layers)
    colour_title = ["Mean change of", "direct effect", "(logits)"]
    # The few strongest layers are what the map is for: they are not to share their last colour.
    colour, beyond = signed_colour("mean", colour_title, rows["mean"], keep=0.995, reach=1.0)
    n_layers = count_of(rows, "component_layer")
    x = _layers("layer", "Layer of the ablated head", n_layers)
    y = _layers("component_layer", "Later layer", n_layers)
    sides = [pl.col(name) + shift for name in ("layer", "component_layer") for shift in (-0.5, 0.5)]
    names = ("x_start", "x_stop", "y_start", "y_stop")
    cells = rows.with_columns(**dict(zip(names, sides, strict=True)))
    tooltip = [
        words.count_tip("layer", "Layer of the ablated head"),
        words.count_tip("component_layer", "Later layer"),
        words.name_tip("kind", "Part"),
        words.logits_tip("mean", "Mean change"),
        words.count_tip("n_heads", "Ablated heads"),
        words.count_tip("n_tokens", "Tokens of all of them"),
    ]
    marks = alt.Chart().mark_rect(strokeWidth=0).encode(x=x.x("x_start"), x2="x_stop:Q")
    marks = marks.encode(y=y.y("y_start"), y2="y_stop:Q", color=colour, tooltip=tooltip)
    share = last_mlp_share(rows)
    return words.titled(
        facets([marks], cells, size=(SIZE, SIZE)),
        TITLE,
        f"{models_of(rows)[0]}, {rows['ablation'][0]} ablation, {words.FROM_TOP_TOKENS}: {_sample(rows)}",
        "Blue: the later part makes up for the head; orange: it adds to the loss; mean over the ablated"
        " layer's heads",
        *[
            f"The last MLP's part of what all MLPs make up for ablated heads of the second half: {share}"
        ]
        * (share is not None),
        *_without_heads(rows, n_layers),
        *colour_notes(rows["mean"], beyond, things="cells"),
        *words.notes(rows, missing=missing),
    )


def caption(repair_layers: pl.DataFrame) -> str:
    if is_unmeasured("E13", repair_layers, "repair_layers", columns=COLUMNS):
        return NOT_MAPPED
    rows, _ = _rows(repair_layers)
    share, post_norms = last_mlp_share(rows), set(rows["kind"]) - {HEAD, MLP}
    scales = ", or by the post-norms that scale what they write" * bool(post_norms)
    last = (
        f" Of all that MLPs make up for the ablated heads of the second half of the layers, {share} is the last"
        " MLP's (a ratio of sums over those heads)."
    )
    return (
        f"Who repairs in {models_of(rows)[0]} under {rows['ablation'][0]} ablation: each head is ablated"
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
    heads = words.amount(layers["n_heads"])
    return (
        f"{words.amount(layers['n_tokens'])} tokens of a layer's {heads} head{'s' * (heads != '1')}"
    )


def _without_heads(rows: pl.DataFrame, n_layers: int) -> list[str]:
    """In how many layers no head was ablated: a line, or none."""
    left_out = n_layers - rows["layer"].n_unique()
    return [f"Layers without an ablated head: {left_out} of {n_layers}"] * (left_out > 0)


def _layers(column: str, title: str, n_layers: int) -> Span:
    step = next(step for step in STEPS if n_layers <= MOST_TICKS * step)
    options = {"values": list(range(0, n_layers, step)), "grid": False, "format": "d"}
    return Span(column, title, (-0.5, n_layers - 0.5), options=options)


def _rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The rows of one ablation whose parts are in a layer, with `panel`; how many have no value."""
    ablated = table.filter(pl.col("n_heads") > 0)
    rows, missing = table_rows(
        "E13",
        table if ablated.is_empty() else ablated,
        "repair_layers",
        columns=COLUMNS,
        finite=["mean"],
        only={"ablation": [main_ablation(table)], "kind": list(PANELS)},
    )
    order = pl.col("kind").replace_strict({kind: at for at, kind in enumerate(PANELS)})
    rows = rows.with_columns(panel=pl.col("kind").replace_strict(PANELS))
    return rows.sort(order, "layer", "component_layer"), missing
