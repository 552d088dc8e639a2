"""The look that all figures share: one Altair theme, enabled when this module is imported.

White page, readable sizes, title and subtitle at the left, Okabe & Ito's colours, which readers with
a colour vision deficiency can tell apart (their yellow is left out: too pale on white).
"""

from __future__ import annotations

from typing import Any

import altair as alt

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
AMBER, SKY, BLACK, SILVER = "#E69F00", "#56B4E9", "#000000", "#999999"
COLOURS = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY, BLACK, SILVER)
# Zero lines, outlines, and whatever else is not data.
GREY = "#666666"
# The palest fifth of viridis does not show on white.
VIRIDIS: Any = {"scheme": "viridis", "extent": [0, 0.85]}
NOTE = "#444444"

# Altair refuses more than 5,000 rows, in case a notebook fills up; a study of eight models has more.
alt.data_transformers.disable_max_rows()


@alt.theme.register("selfrepair", enable=True)
def theme() -> alt.theme.ThemeConfig:
    return {
        "config": {
            "background": "white",
            "padding": 12,
            "font": "Arial, Liberation Sans, sans-serif",
            "view": {"stroke": None},
            "axis": {
                "labelFontSize": 12,
                "titleFontSize": 13,
                "titleFontWeight": "normal",
                "gridColor": "#eeeeee",
            },
            "header": {
                "labelFontSize": 12,
                "labelFontWeight": "bold",
                "labelLineHeight": 15,
                # A line break in a heading starts a new line.
                "labelExpr": r"split(datum.label, '\n')",
                "titleFontSize": 13,
            },
            "legend": {
                "labelFontSize": 12,
                "titleFontSize": 12,
                "labelLimit": 260,
                "symbolOpacity": 1,
                "symbolType": "circle",
                "symbolSize": 70,
                "symbolStrokeWidth": 0,
                "gradientLength": 140,
            },
            "title": {
                "anchor": "start",
                "fontSize": 16,
                "fontWeight": "bold",
                "offset": 14,
                "subtitleFontSize": 12,
                "subtitleColor": NOTE,
            },
            "text": {"fontSize": 12},
            "range": {"category": list(COLOURS), "ramp": VIRIDIS, "ordinal": VIRIDIS},
        }
    }
