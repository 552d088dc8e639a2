"""E13 is tested on its spec: a cell for every later part, one scale of colours, the last MLP's share."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import polars as pl
import pytest

from figure_specs import drawn, headings, subtitle
from repair_tables import repair_layers
from selfrepair.errors import InputError
from selfrepair.figures.e13_repair_map import PANELS, caption, draw, last_mlp_share
from selfrepair.figures.rows import NotMeasured


@cache
def plain() -> dict[str, Any]:
    """Of the made up table, drawn once for all tests."""
    return draw(repair_layers()).to_dict()


def cells_of(table: pl.DataFrame) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    (cells,) = drawn(draw(table).to_dict(), "rect", "component_layer")
    return cells, cells["rows"]


def test_a_cell_for_every_part_that_comes_later() -> None:
    table = repair_layers(layers=6, heads=3)
    part, cells = cells_of(table)
    assert len(cells) == 15 + 21  # heads of later layers; MLPs from the head's own layer on
    for row in cells:
        assert row["component_layer"] - row["layer"] >= (row["kind"] == "head")
        keys = ("layer", "kind", "component_layer")
        assert row["mean"] == table.filter(**{key: row[key] for key in keys})["mean"].item()
    assert part["encoding"]["x"]["field"] == "layer"
    for axis in ("x", "y"):
        assert part["encoding"][axis]["scale"]["domain"] == list(range(6))


def test_panels_share_one_scale_about_zero_that_has_every_colour() -> None:
    part, cells = cells_of(repair_layers(layers=12, heads=4))
    colour = part["encoding"]["color"]
    low, middle, high = colour["scale"]["domain"]
    assert middle == 0 == low + high
    assert max(abs(row["mean"]) for row in cells) < high
    assert "(logits)" in colour["title"]
    assert headings(plain()) == [PANELS["head"], PANELS["mlp"]]


def test_post_norms_have_panels_in_a_model_that_has_some() -> None:
    table = repair_layers(post_norms=True)
    assert headings(draw(table).to_dict()) == list(PANELS.values())
    assert "post-norms" in caption(table)
    assert "post-norms" not in caption(repair_layers())


def test_a_cell_beyond_the_colours_is_counted() -> None:
    table = repair_layers(layers=20, heads=2)
    here = (pl.col("layer") == 2) & (pl.col("component_layer") == 7) & (pl.col("kind") == "mlp")
    far = table.with_columns(mean=pl.when(here).then(99.0).otherwise("mean"))
    assert "Beyond the colours' scale, in its last colour: 1 cells" in subtitle(draw(far).to_dict())
    assert "Beyond" not in subtitle(draw(table).to_dict())


def test_the_last_mlps_share_is_over_heads_of_the_second_half() -> None:
    rows = pl.DataFrame(
        {
            "layer": [0, 2, 2, 3, 2],
            "kind": ["mlp", "mlp", "mlp", "mlp", "head"],
            "component_layer": [3, 2, 3, 3, 3],
            "mean": [9.0, 0.2, 0.1, 0.3, 7.0],
            "n_heads": [2, 2, 2, 1, 2],
        }
    )
    part, whole = 2 * 0.1 + 0.3, 2 * 0.2 + 2 * 0.1 + 0.3
    assert last_mlp_share(rows) == f"{100 * part / whole:.0f} %" == "56 %"
    assert last_mlp_share(rows.with_columns(pl.col("mean") * -1)) is None


def test_the_words_say_what_is_shown() -> None:
    table = repair_layers()
    text, share = caption(table), last_mlp_share(table)
    for words in (
        "toy",
        "resample ablation",
        "66 tokens of a layer's 3 heads",
        "direct effect",
        share,
    ):
        assert words is not None
        assert words in text
        assert words in subtitle(plain()).lower() or words == "direct effect"
    assert 2 <= len(re.findall(r"\.(?: |$)", text)) <= 6
    sizes = re.findall(r'"\w*[fF]ontSize": (\d+)', json.dumps(plain()))
    assert min(map(int, sizes)) >= 11


def test_one_ablation_is_drawn_resample_if_it_has_a_map() -> None:
    assert "under resample ablation" in caption(repair_layers("mean", "resample"))
    assert "under mean ablation" in caption(repair_layers("mean", "zero"))
    assert cells_of(repair_layers("mean", "resample"))[1] == cells_of(repair_layers())[1]


def test_layers_without_a_number_are_no_cells_and_are_counted() -> None:
    table = repair_layers()
    table = table.with_columns(
        mean=pl.when(pl.col("layer") == 2).then(float("nan")).otherwise("mean")
    )
    assert {row["layer"] for row in cells_of(table)[1]} == {0, 1, 3, 4, 5}
    assert "without a finite value, not drawn: 7" in subtitle(draw(table).to_dict())


def test_a_study_without_a_map_is_told_so() -> None:
    for function in (draw, caption):
        with pytest.raises(
            NotMeasured, match=r"^Not measured: no ablation of this study keeps a map"
        ):
            function(repair_layers().clear())


def test_the_smallest_model_can_be_drawn() -> None:
    assert len(cells_of(repair_layers(layers=1, heads=1))[1]) == 1
    assert "toy" in caption(repair_layers(layers=1, heads=1))


def test_a_table_that_cannot_be_drawn_is_refused() -> None:
    two = pl.concat([repair_layers(), repair_layers(model="other")])
    for function in (draw, caption):
        with pytest.raises(
            InputError, match=r"^E13: the repair_layers table has no column mean; write"
        ):
            function(repair_layers().drop("mean"))
        with pytest.raises(InputError, match=r"^E13: takes one model, got toy and other"):
            function(two)
