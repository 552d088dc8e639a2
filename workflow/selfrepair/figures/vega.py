"""Vega, the script that draws figures in a browser: one copy for all pages of a study."""

from __future__ import annotations

from pathlib import Path

import altair as alt
import vl_convert

from ..files.storage import atomic

# The version of Vega-Lite that altair writes, as vl_convert names it.
VEGA_LITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


def save_vega(path: Path) -> None:
    """Write the script that pages need to draw themselves: Vega, Vega-Lite and their embedding."""
    # The stub forgets that the snippet is optional (vl-convert 1.9).
    vega = vl_convert.javascript_bundle(vl_version=VEGA_LITE)  # type: ignore[call-arg]
    with atomic(path) as temporary:
        temporary.write_bytes(vega.encode())
