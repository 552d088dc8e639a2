"""Reading the Vega-Lite spec of a figure: what its tests look at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def layers_of(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All unit charts of a spec, depth first, each with `rows`, its data, and `facet`, if in one."""
    for key in ("concat", "hconcat", "vconcat", "layer", "spec"):
        parts = spec.get(key, [])
        for part in parts if isinstance(parts, list) else [parts]:
            names = ("data", "datasets", "facet")
            yield from layers_of({name: spec[name] for name in names if name in spec} | part)
    if "mark" in spec:
        data = spec["data"]
        rows = data["values"] if "values" in data else spec["datasets"][data["name"]]
        yield spec | {"rows": rows}


def drawn(spec: dict[str, Any], mark: str, field: str, *, axis: str = "y") -> list[dict[str, Any]]:
    """The unit charts with this mark whose y, or another axis, is this field."""
    return [
        part
        for part in layers_of(spec)
        if part["mark"]["type"] == mark and part["encoding"].get(axis, {}).get("field") == field
    ]


def headings(spec: dict[str, Any]) -> list[str]:
    """The headings of a spec's panels, in order."""
    return spec["facet"]["sort"]


def subtitle(spec: dict[str, Any]) -> str:
    return "\n".join(spec["title"]["subtitle"])
