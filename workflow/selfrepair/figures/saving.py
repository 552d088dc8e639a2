"""A figure as files: a page that works offline, SVG, PNG and PDF, all from one drawing.

Pages of a study share one copy of Vega, which lies beside them and draws them in the browser. Files are
kept small, because those of recorded studies lie in the repository.
"""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert
from PIL import Image

from ..files.storage import write_bytes
from .vega import VEGA_LITE

FORMATS = ("html", "svg", "png", "pdf")


def save_figure(
    chart: alt.TopLevelMixin,
    caption: str,
    stem: Path,
    *,
    vega: Path,
    formats: Collection[str] = FORMATS,
) -> list[Path]:
    """Write `<stem>.html`, `.svg`, `.png` (two pixels per unit) and `.pdf`, or some of them; return their paths.

    vega: what `save_vega` wrote, in the folder of the page or one above; the page names it relative to its
    own place.

    All are rendered before any is written, and each appears under its name only when complete. A file of a
    format that is not asked for is removed: it would show something older.
    The same chart gives the same bytes, except the PDF: the same drawing, but vl-convert 1.9 lists
    its resources in random order.
    """
    # One validated spec and one drawing for all: both take seconds for a large model.
    spec = chart.to_dict()
    svg = _drawing(spec, caption)
    render: dict[str, Callable[[], bytes]] = {
        "html": lambda: _page(spec, caption, os.path.relpath(vega, stem.parent)).encode(),
        "svg": svg.encode,
        "png": lambda: small_png(vl_convert.svg_to_png(svg, scale=2)),
        "pdf": lambda: vl_convert.svg_to_pdf(svg),
    }
    contents = {kind: render[kind]() for kind in FORMATS if kind in formats}
    paths = {kind: stem.with_name(f"{stem.name}.{kind}") for kind in FORMATS}
    for kind, path in paths.items():
        if kind in contents:
            write_bytes(path, contents[kind])
        else:
            path.unlink(missing_ok=True)
    return [paths[kind] for kind in contents]


_TAG = re.compile(r"<[a-z][^>]*>")
# What the picture does without: labels for each of thousands of marks, and attributes at their default.
_SPARE = re.compile(r' (?:(?:aria-[a-z]+|role|class)="[^"]*"|pointer-events="none"|opacity="1")')
_NUMBERS = re.compile(r' (?:transform|d|x|y|x2|y2|width|height)="[^"]*"')
_DISC = re.compile(r'<path ([^>]*)d="M([\d.]+),0A\2,\2,0,1,1,-\2,0A\2,\2,0,1,1,\2,0"')
_COUNTED = re.compile(r'(?<=id=")(?:gradient_|clip)\d+(?=")|(?<=url\(#)(?:gradient_|clip)\d+(?=\))')
_LONG = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")


def _drawing(spec: dict[str, Any], caption: str) -> str:
    """The figure as SVG: without a label on each mark, coordinates to a hundredth of a unit, title and
    caption for those who cannot see it."""
    svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE, config={"aria": False})
    svg = _TAG.sub(lambda tag: _NUMBERS.sub(_rounded, _SPARE.sub("", tag[0])), svg)
    svg = _DISC.sub(r'<circle \1r="\2"', svg)
    # Vega counts gradients and clips over all figures of a process.
    names = {name: f"gradient_{i}" for i, name in enumerate(dict.fromkeys(_COUNTED.findall(svg)))}
    svg = _COUNTED.sub(lambda name: names[name[0]], svg)
    title = html.escape(spec["title"]["text"])
    described = f'<svg role="img" aria-label="{title}"'
    svg = svg.replace("<svg", described, 1)
    return svg.replace(">", f"><desc>{html.escape(caption)}</desc>", 1)


def _shortened(row: dict[str, Any]) -> dict[str, Any]:
    """Fractions to seven digits."""
    return {k: float(f"{v:.7g}") if isinstance(v, float) else v for k, v in row.items()}


def _rounded(attribute: re.Match[str]) -> str:
    return _LONG.sub(lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), attribute[0])


def small_png(png: bytes) -> bytes:
    """The same picture in a palette of its 256 best colours, at an eighth of the size.

    Areas keep their colour to 3 of 255 levels (each figure of the default study was compared): a palette
    that covers rare colours better turned grey bands pink.
    """
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    palette = picture.quantize(256, Image.Quantize.MEDIANCUT, kmeans=2, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    palette.save(stream, "PNG", optimize=True)
    return stream.getvalue()


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
  else place.textContent = "{vega} is missing: this page needs it there; the pictures beside it do not.";
}});
</script>
</body>
</html>
"""


def _page(spec: dict[str, Any], caption: str, vega: str) -> str:
    # The menu's editor entry would send the data to a web site.
    actions = {"export": True, "source": True, "compiled": False, "editor": False}
    # Seven digits draw the same picture, and random last ones are what does not pack.
    rows = {name: [_shortened(row) for row in rows] for name, rows in spec["datasets"].items()}
    content = {"spec": spec | {"datasets": rows}, "options": {"actions": actions}}
    figure = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return _PAGE.format(
        title=html.escape(spec["title"]["text"]),
        caption=html.escape(caption),
        vega=vega,
        packed=base64.b64encode(gzip.compress(figure.encode(), mtime=0)).decode(),
    )
