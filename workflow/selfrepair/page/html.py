"""The page as one file: its data and Vega packed into the bundled scripts and styles."""

from __future__ import annotations

import base64
import gzip
import html
import json
from typing import Any

from ..errors import InputError

# What the bundle has in place of what a study fills in.
TITLE, DATA, VEGA = "%TITLE%", "%DATA%", "%VEGA%"


def page_html(bundle: str, data: dict[str, Any], vega: str) -> str:
    """The page of a study.

    Args:
        bundle: `workflow/page/dist/page.html`.
        data: of `page_data`.
        vega: the script that draws charts, what `save_vega` wrote.
    Raises:
        InputError: the bundle is not the page's.
    """
    filled = {
        TITLE: html.escape(f"Self-repair: {data['study']}"),
        DATA: packed(json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False)),
        VEGA: packed(vega),
    }
    parts = [bundle]
    for place in filled:
        before, found, after = parts.pop().partition(place)
        if not found:
            raise InputError(f"the page's bundle has no {place}; make it again: make page-bundle")
        parts += [before, filled[place], after]
    return "".join(parts)


def packed(text: str) -> str:
    """Text as gzip in base64, whose letters cannot end an element of a page; the same text gives the same."""
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=9, mtime=0)).decode()
