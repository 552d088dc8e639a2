"""Charts in a notebook as pictures: a live chart holds all of its data, and a code host does not show it."""

from __future__ import annotations

from typing import Any

import altair as alt
import vl_convert

from .saving import small_png
from .vega import VEGA_LITE

NAME = "small-pictures"
# Pixels per unit of a chart.
SCALE = 1.5


def small_pictures() -> None:
    """From now on show every chart of this process as a PNG of 256 colours; `altair.renderers.enable("default")`
    ends it."""
    alt.renderers.enable(NAME)


def _render(spec: dict[str, Any], **_: Any) -> dict[str, bytes]:
    png = vl_convert.vegalite_to_png(spec, vl_version=VEGA_LITE, scale=SCALE)
    return {"image/png": small_png(png)}


alt.renderers.register(NAME, _render)
