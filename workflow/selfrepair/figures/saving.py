"""A figure as files: a page that works offline, SVG, PNG and PDF, all from one drawing."""

from __future__ import annotations

import base64
import gzip
import html
import json
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from ..files.storage import atomic

# The version of Vega-Lite that altair writes, as vl_convert names it.
VEGA_LITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


def save_figure(chart: alt.TopLevelMixin, caption: str, stem: Path) -> list[Path]:
    """Write `<stem>.html`, `.svg`, `.png` (two pixels per unit) and `.pdf`; return their paths.

    All four are rendered before any is written, and each appears under its name only when complete.
    The same chart gives the same bytes, except the PDF: the same drawing, but vl-convert 1.9 lists
    its resources in random order.
    """
    # One validated spec and one drawing for all: both take seconds for a large model.
    spec = chart.to_dict()
    svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE)
    contents = {
        "html": _page(spec, caption).encode(),
        "svg": svg.encode(),
        "png": vl_convert.svg_to_png(svg, scale=2),
        "pdf": vl_convert.svg_to_pdf(svg),
    }
    paths = {kind: stem.with_name(f"{stem.name}.{kind}") for kind in contents}
    for kind, path in paths.items():
        with atomic(path) as temporary:
            temporary.write_bytes(contents[kind])
    return list(paths.values())


# Altair's own offline page holds Vega as plain text, 0.9 MB in every figure. Here Vega and the figure
# are one script, packed (gzip in base64) to half of that and less.
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
</head>
<body>
<figure>
<div id="figure"></div>
<figcaption>{caption}</figcaption>
</figure>
<script type="text/plain" id="packed">{packed}</script>
<script>
const packed = atob(document.getElementById("packed").textContent);
const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
new Response(stream).text().then((code) => {{
  const script = document.createElement("script");
  script.textContent = code;
  document.head.append(script);
}});
</script>
</body>
</html>
"""


def _page(spec: dict[str, Any], caption: str) -> str:
    # The menu's editor entry would send the data to a web site.
    actions = {"export": True, "source": True, "compiled": False, "editor": False}
    figure = json.dumps(spec, allow_nan=False), json.dumps({"actions": actions})
    # The stub forgets that the snippet is optional (vl-convert 1.9).
    vega = vl_convert.javascript_bundle(vl_version=VEGA_LITE)  # type: ignore[call-arg]
    code = f'{vega}\nvegaEmbed("#figure", {", ".join(figure)});\n'
    return _PAGE.format(
        title=html.escape(spec["title"]["text"]),
        caption=html.escape(caption),
        packed=base64.b64encode(gzip.compress(code.encode(), mtime=0)).decode(),
    )
