"""E3: direct effect against the logit's change, token by token, a panel per chosen head."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from ..vocabulary import ALL, TOKEN_REGIONS, TOP
from . import marks, words
from .axes import Span, fitted, placed
from .panels import heads_and_tokens, panel_per_head
from .rows import estimate, heads_of, summary_rows, table_rows
from .theme import AMBER, BLUE, ORANGE, SKY

EFFECTS = ("direct_effect", "ablated_direct_effect", "delta_logit", "self_repair")
COLUMNS = ("model", "layer", "head", "prompt", "position", "region", *EFFECTS)
# The regions from the lowest up, and the slope of the line between each and the next.
INKS = dict(zip(TOKEN_REGIONS, (ORANGE, AMBER, SKY, BLUE), strict=True))
SLOPES = (-1.0, -0.5, 0.0)
WIDTH = 230


def draw(tokens: pl.DataFrame, summaries: pl.DataFrame) -> alt.VConcatChart:
    """One model, resample ablation, both in logits. A point is a top token; the lines y = -x, -x/2
    and 0 part the regions. Below each head: the share of its tokens in each region."""
    rows, shares, missing = _rows(tokens, summaries)
    x = fitted(rows, "direct_effect", "Direct effect (logits)", bars=False)
    y_title = ["Change of the logit", "when ablated (logits)"]
    y = fitted(rows, "delta_logit", y_title, bars=False)
    rows = placed(rows, x=x, y=y)
    drawn = marks.cloud_rows(rows, x, y, "panel")
    colour = marks.inks("region", None, INKS, legend=None)
    tooltip = words.tips(rows, "prompt", "position", *EFFECTS, "region")
    layers = [
        marks.rule(y=0.0),
        *marks.cloud(drawn, x, y, "panel", color=colour, tooltip=tooltip),
        *(marks.line_through_zero(slope, x, y, positive=True) for slope in SLOPES),
    ]
    # Room right of the bars for their numbers.
    share = Span(
        "value", "Share of tokens", (0.0, 1.7), percent=True, options={"values": [0, 0.5, 1]}
    )
    region = alt.Y("region:N", title=None, sort=list(TOKEN_REGIONS[::-1]))
    base = alt.Chart().encode(region)
    numbers = base.mark_text(align="right", dy=-7, fontSize=11, lineBreak="\n")
    bars = [
        base.mark_bar(height=10).encode(share.x(), color=colour),
        marks.whiskers(share, along="x", strokeOpacity=1).encode(region),
        base.mark_point(color="black", size=40).encode(share.x("all")),
        numbers.encode(alt.XValue(WIDTH), alt.Text("words:N")),
    ]
    columns = min(len(marks.headings_of(rows)), 4)
    above = marks.facets(layers, drawn, size=(WIDTH, WIDTH), columns=columns)
    below = marks.facets(bars, shares, size=(WIDTH, 132), columns=columns)
    negative = rows.filter(pl.col("direct_effect") <= 0).height
    return words.titled(
        alt.vconcat(above, below, spacing=24),
        "Self-repair token by token",
        f"{rows['model'][0]}, resample ablation, {words.FROM_TOP_TOKENS}: {words.tokens_per_head(rows)}",
        "Bars: share of these tokens in each region and its 95 % interval"
        + _of_all(shares, "; circle: of {}"),
        *marks.density_note(rows, "panel"),
        *words.notes(rows, missing=missing),
        *[f"Tokens with a direct effect ≤ 0, to which no line applies: {negative:,}"][:negative],
    )


def caption(tokens: pl.DataFrame, summaries: pl.DataFrame) -> str:
    rows, shares, _ = _rows(tokens, summaries)
    return (
        f"{marks.mark_of(rows, 'token', 'panel')}, for {heads_and_tokens(rows, words.tokens_per_head(rows))}."
        " Across: the head's direct"
        " effect on the logit of the token to predict; up: by how much that logit changes when the"
        " head is ablated. Below the line y = −x the logit falls by more than the direct effect"
        " (breakage), between y = −x and y = −x/2 less than half of it is made up for"
        " (under-repair), up to y = 0 at least half (repair), and above that the logit rises although"
        " the head is gone (over-correction). The bars give each region's share of these tokens with a"
        f" 95 % bootstrap interval over prompts{_of_all(shares, ', the circles its share of {}')}:"
        " self-repair is noisy where the shares are spread over several regions."
    )


def _rows(tokens: pl.DataFrame, summaries: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """The tokens; a row per head and region with its shares; how many tokens have no value."""
    finite = ("direct_effect", "delta_logit")
    rows, missing = table_rows("E3", tokens, "tokens", columns=COLUMNS, finite=finite)
    rows = panel_per_head(rows, lambda panel: [f"{panel.height:,} top tokens"])
    about: marks.Look = {"experiment": "E3", "quantity": "region_share"}
    found = summary_rows("E3", summaries, rows["model"][0], **about)
    shares = [_share(found, head, region) for head in heads_of(rows) for region in TOKEN_REGIONS]
    return rows, pl.DataFrame(shares, infer_schema_length=None), missing


def _share(found: pl.DataFrame, head: dict[str, Any], region: str) -> dict[str, Any]:
    """A region's share of a head's drawn top tokens, `all` its share of `n_all` tokens drawn from all, and
    both as words."""
    top, every = (estimate(found, **head, group=f"{which}/{region}") for which in (TOP, ALL))
    return {
        "panel": words.head_name(head),
        "region": region,
        "value": top and top["value"],
        "value_low": top and top["low"],
        "value_high": top and top["high"],
        "all": every and every["value"],
        "n_all": every and every["n_tokens"],
        "words": f"{words.estimated(top)}\nall: {words.estimated(every)}",
    }


def _of_all(shares: pl.DataFrame, phrase: str) -> str:
    """The phrase with the tokens that the shares of all tokens are of; nothing if none were drawn."""
    counts = shares["n_all"].drop_nulls()
    if counts.is_empty():
        return ""
    return phrase.format(f"{words.amount(counts)} tokens drawn at random from all")
