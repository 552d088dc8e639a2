"""The figure of released against measured numbers is tested on its spec."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest

from figure_specs import drawn, layers_of, subtitle
from selfrepair.errors import InputError
from selfrepair.figures import marks
from selfrepair.figures.published import PANELS, caption, draw

QUANTITIES = [name for line in PANELS for name in line]


def comparison(layers: int = 4, heads: int = 5, model: str = "toy") -> pl.DataFrame:
    """Measured is published with noise; clipped shares have no interval."""
    number = np.random.default_rng(0)
    rows = []
    for quantity in QUANTITIES:
        for layer in range(layers):
            for head in range(heads):
                published = number.uniform(0, 1)
                measured = published + number.normal(0, 0.1)
                bound = None if quantity.endswith("_clipped") else 0.1
                row = {"model": model, "quantity": quantity, "layer": layer, "head": head}
                row |= {"published": published, "measured": measured}
                row["measured_low"] = bound and measured - bound
                row["measured_high"] = bound and measured + bound
                rows.append(row)
    return pl.DataFrame(rows)


def change(table: pl.DataFrame, quantity: str, **values: float) -> pl.DataFrame:
    """The table with the first head's values of a quantity replaced."""
    here = (pl.col("quantity") == quantity) & (pl.col("layer") == 0) & (pl.col("head") == 0)
    return table.with_columns(
        pl.when(here).then(value).otherwise(name).alias(name) for name, value in values.items()
    )


def panels_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The panels, with the data that altair may have moved up to their line."""
    return [
        {name: part[name] for part in (spec, line) for name in ("datasets", "data") if name in part}
        | panel
        for line in spec["vconcat"]
        for panel in line["hconcat"]
    ]


@cache
def plain() -> dict[str, Any]:
    """Of the made up table, drawn once for all tests."""
    return draw(comparison()).to_dict()


def test_a_panel_per_quantity_with_every_head() -> None:
    table, spec = comparison(), plain()
    json.dumps(spec, allow_nan=False)
    panels = panels_of(spec)
    assert [panel["title"]["text"] for panel in panels] == [t for p in PANELS for t in p.values()]
    assert subtitle(spec).startswith("toy, resample ablation")
    for panel, quantity in zip(panels, QUANTITIES, strict=True):
        want = table.filter(quantity=quantity)
        (points,) = drawn(panel, "point", "measured")
        for name in ("published", "measured"):
            assert [row[name] for row in points["rows"]] == want[name].to_list()
        r = np.corrcoef(want["published"], want["measured"])[0, 1]
        assert panel["title"]["subtitle"] == [f"r = {r:.2f}, 20 heads"]
        x, y = points["encoding"]["x"], points["encoding"]["y"]
        assert x["scale"]["domain"] == y["scale"]["domain"]
        unit = "share" if quantity.endswith("_clipped") else "logits"
        assert (x["title"], y["title"]) == (f"Published ({unit})", f"Measured ({unit})")
        assert points["encoding"]["color"]["field"] == "layer"


def test_the_line_is_the_identity_and_bars_are_our_intervals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = plain()
    for panel in panels_of(spec):
        (line,) = drawn(panel, "line", "y")
        assert all(end["x"] == end["y"] for end in line["rows"])
    (bars, *_) = drawn(panels_of(spec)[0], "rule", "measured_low")
    assert bars["encoding"]["y2"]["field"] == "measured_high"
    monkeypatch.setattr(marks, "MOST_BARS", 19)
    large = draw(comparison().filter(quantity="direct_effect")).to_dict()
    assert not [part for part in layers_of(large) if part["encoding"].get("y2")]


def test_far_and_missing_heads_are_counted() -> None:
    table = comparison(12, 12).filter(pl.col("quantity").is_in(["direct_effect", "from_heads"]))
    table = change(table, "direct_effect", published=1000.0)
    spec = draw(change(table, "from_heads", published=float("nan"))).to_dict()
    assert "Beyond the axes, triangles at the edge: 1 of 287 points" in subtitle(spec)
    assert "Rows of the table without a finite value, not drawn: 1" in subtitle(spec)
    first, second = (drawn(panel, "point", "measured")[0]["rows"] for panel in panels_of(spec))
    assert (len(first), len(second)) == (144, 143)
    far = [row for row in first if row["edge"] != "within"]
    assert [(row["layer"], row["head"], row["edge"]) for row in far] == [(0, 0, "right")]


def test_a_constant_has_no_correlation() -> None:
    table = comparison().filter(quantity="from_mlps").with_columns(published=pl.lit(0.5))
    title = panels_of(draw(table).to_dict())[0]["title"]
    assert title["subtitle"] == ["r undefined, 20 heads"]


def test_what_it_cannot_draw_is_refused() -> None:
    table = comparison()
    cases = [
        (pl.concat([table, comparison(model="b")]), "takes one model, got toy and b"),
        (table.drop("measured_low"), "no column measured_low"),
        (table.with_columns(measured=pl.lit(float("nan"))), "no rows with .*finite"),
        (table.with_columns(quantity=pl.lit("x")), "no rows with quantity direct_effect/"),
    ]
    for wrong, message in cases:
        for function in (draw, caption):
            with pytest.raises(InputError, match=message):
                function(wrong)


def test_the_caption_says_what_is_drawn() -> None:
    text = caption(comparison())
    assert "toy (20 per panel)" in text
    assert "bars are 95 % bootstrap intervals" in text
    shares = comparison().filter(pl.col("quantity").str.ends_with("_clipped"))
    assert "bars" not in caption(shares)
    assert "bars" not in caption(comparison(21, 20))
