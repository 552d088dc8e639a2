"""A figure as files: a page that works offline, SVG, PNG and PDF, all from one drawing.

Pages of a study share one copy of Vega, which lies beside them and draws them in the browser.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import os
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from ..files.storage import atomic
from .vega import VEGA_LITE


def save_figure(chart: alt.TopLevelMixin, caption: str, stem: Path, *, vega: Path) -> list[Path]:
    """Write `<stem>.html`, `.svg`, `.png` (two pixels per unit) and `.pdf`; return their paths.

    vega: what `save_vega` wrote, in the folder of the page or one above; the page names it relative to its
    own place.

    All four are rendered before any is written, and each appears under its name only when complete.
    The same chart gives the same bytes, except the PDF: the same drawing, but vl-convert 1.9 lists
    its resources in random order.
    """
    # One validated spec and one drawing for all: both take seconds for a large model.
    spec = chart.to_dict()
    svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE)
    contents = {
        "html": _page(spec, caption, os.path.relpath(vega, stem.parent)).encode(),
        "svg": svg.encode(),
        "png": vl_convert.svg_to_png(svg, scale=2),
        "pdf": vl_convert.svg_to_pdf(svg),
    }
    paths = {kind: stem.with_name(f"{stem.name}.{kind}") for kind in contents}
    for kind, path in paths.items():
        with atomic(path) as temporary:
            temporary.write_bytes(contents[kind])
    return list(paths.values())


# Altair's own offline page holds Vega as plain text, 0.9 MB in every figure. Here it is a file of its own, and
# the figure is packed (gzip in base64). A plain script, because a page that is opened as a file may load
# nothing else.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="UTF-8">
<title>{title}</title>
<style>
body {{ margin: 2em; font-family: Arial, sans-serif; background: white; color: #222; }}
figure {{ margin: 0; }}
figcaption {{ max-width: 46em; margin-top: 1em; line-height: 1.45; }}
</style>
<script src="{vega}"></script>
</head>
<body>
<figure>
<div id="figure"></div>
<figcaption>{caption}</figcaption>
</figure>
<script type="text/plain" id="packed">{packed}</script>
<script>
const place = document.getElementById("figure");
const packed = atob(document.getElementById("packed").textContent);
const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
new Response(stream).json().then((figure) => {{
  if (window.vegaEmbed) vegaEmbed(place, figure.spec, figure.options);
  else place.textContent = "{vega} is missing: this page needs it there; the SVG, PNG and PDF do not.";
}});
</script>
</body>
</html>
"""


def _page(spec: dict[str, Any], caption: str, vega: str) -> str:
    # The menu's editor entry would send the data to a web site.
    actions = {"export": True, "source": True, "compiled": False, "editor": False}
    figure = json.dumps({"spec": spec, "options": {"actions": actions}}, allow_nan=False)
    return _PAGE.format(
        title=html.escape(spec["title"]["text"]),
        caption=html.escape(caption),
        vega=vega,
        packed=base64.b64encode(gzip.compress(figure.encode(), mtime=0)).decode(),
    )
