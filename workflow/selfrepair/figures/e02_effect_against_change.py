"""E2: each head's direct effect against the logit's change when it is ablated, a panel per ablation."""

from __future__ import annotations

import altair as alt
import polars as pl

from ..ablations import ABLATIONS
from ..other_ablations import OPTIMAL, TITLES
from ..vocabulary import TOP, bounded
from . import marks, words
from .axes import fitted, placed
from .rows import check_columns, count_of, head_rows

EFFECTS = ("direct_effect", "delta_logit")
# Of chosen heads under every ablation.
COLUMNS = (
    *("model", "ablation", "layer", "head", "n_tokens", "n_prompts"),
    *(column for name in EFFECTS for column in bounded(name)),
)


def draw(heads: pl.DataFrame, compared: pl.DataFrame | None = None) -> alt.FacetChart:
    """One model, top tokens, both in logits. On y = -x the logit falls by exactly the direct effect.

    compared: chosen heads under every ablation; their optimal ablation is one more panel, if it was measured.
    Bars are 95 % intervals, left out where there are too many heads to tell them apart.
    """
    rows, missing = _rows(heads, compared)
    x = fitted(rows, "direct_effect", "Direct effect (logits)", bars=False)
    y = fitted(rows, "delta_logit", "Change of the logit when ablated (logits)")
    rows, bars = placed(rows, x=x, y=y), marks.few(rows, "panel")
    look: marks.Look = {
        "x": x.x(),
        "color": marks.layer_colour(count_of(heads, "layer")),
        "tooltip": words.tips(rows, *words.HEAD, x, y),
    }
    layers = [
        marks.rule(y=0.0),
        marks.line_through_zero(-1.0, x, y),
        *marks.estimates(rows, y, "panel", bars=bars, **look),
    ]
    return words.titled(
        marks.facets(layers, rows, size=(320, 320)),
        "Change of the logit against direct effect",
        f"{rows['model'][0]}, {words.FROM_TOP_TOKENS}; point: head, dashed: y = −x, no self-repair"
        + ", bar: 95 % interval" * bars,
        *words.left_out(heads),
        *words.notes(rows, *[y] * bars, missing=missing),
    )


def caption(heads: pl.DataFrame, compared: pl.DataFrame | None = None) -> str:
    rows, _ = _rows(heads, compared)
    bars = "; bars are 95 % bootstrap intervals over prompts" * marks.few(rows, "panel")
    optimal = (
        " Optimal ablation, by the constant that does the least harm, is of chosen heads alone, on other tokens of"
        " theirs, and leaves a beginning-of-sequence token as it is."
    ) * (OPTIMAL in rows["ablation"])
    return (
        f"A point is an attention head of {rows['model'][0]} ({words.number_of(rows, heads)}) under"
        f" {words.listed(marks.headings_of(rows, 'ablation'))} ablation, averaged over {words.FROM_LARGEST}:"
        f" {words.sample(rows)}{bars}. Across: the head's direct effect on the target token's logit;"
        " up: by how much that logit changes when the head is ablated. On the dashed line y = −x the"
        " logit falls by just the direct effect; above it later parts of the model make up for part"
        " of the loss (self-repair), or the replaced output has some direct effect of its own, and"
        f" at zero the whole loss is made up for.{optimal}"
    )


def _rows(heads: pl.DataFrame, compared: pl.DataFrame | None) -> tuple[pl.DataFrame, int]:
    """The rows, with their panel's heading, in the order of ABLATIONS, then those of chosen heads under the
    ablation that does the least harm."""
    rows, missing = head_rows("E2", heads, EFFECTS, ablations=list(ABLATIONS), one_model=True)
    titles = {name: ablation.title.capitalize() for name, ablation in ABLATIONS.items()}
    rows = rows.with_columns(panel=pl.col("ablation").replace_strict(titles))
    if compared is None or compared.is_empty():
        return rows, missing
    check_columns("E2", compared, "compared_ablations", COLUMNS)
    known = compared.filter(pl.col("delta_logit").is_finite(), ablation=OPTIMAL)
    heading = f"{TITLES[OPTIMAL].capitalize()}, chosen heads"
    known = known.with_columns(selection=pl.lit(TOP), depth=None, panel=pl.lit(heading))
    kinds = rows.schema.items()
    return pl.concat([rows, known.select(pl.col(n).cast(k) for n, k in kinds)]), missing
