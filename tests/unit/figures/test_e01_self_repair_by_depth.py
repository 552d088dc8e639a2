"""E1 is tested on its spec: what is drawn, where, under which title."""

from __future__ import annotations

import re
from typing import Any

import polars as pl
import pytest

from figure_specs import drawn, headings, subtitle
from figure_tables import change, heads_table, two_models
from selfrepair.errors import InputError
from selfrepair.figures.e01_self_repair_by_depth import caption, draw


def heads_in(spec: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The chart of the points, and their rows."""
    (points,) = drawn(spec, "point", "self_repair")
    return points, points["rows"]


def test_each_head_is_drawn_once_with_its_units() -> None:
    for table in (two_models(), heads_table("a")):
        points, rows = heads_in(draw(table).to_dict())
        want = table.filter(ablation="resample", selection="top")
        keys = ["model", "layer", "head", "self_repair"]
        assert pl.DataFrame(rows).select(keys).equals(want.select(keys))
        assert points["encoding"]["x"]["title"] == "Relative depth (layer / last layer)"
        assert points["encoding"]["y"]["title"] == "Self-repair (logits)"
        models = want["model"].unique(maintain_order=True).to_list()
        assert points["encoding"]["color"]["scale"]["domain"] == models
        tips = {tip["field"] for tip in points["encoding"]["tooltip"]}
        assert {"layer", "head", "self_repair", "self_repair_low", "self_repair_high"} <= tips


def test_lines_join_the_means_of_each_models_layers() -> None:
    table = two_models().filter(ablation="resample", selection="top")
    others, own = drawn(draw(table).to_dict(), "line", "self_repair")
    assert own["encoding"]["color"]["field"] == "model"
    # Over the heads of a layer, which alone have a depth and a colour in common.
    assert own["encoding"]["y"]["aggregate"] == "mean"
    assert set(own["encoding"]) == {"x", "y", "color"}
    assert len(own["rows"]) == table.height
    assert len(others["rows"]) == 4 + 3
    for row in others["rows"]:
        same = table.filter(model=row["model"], layer=row["layer"])["self_repair"].to_list()
        assert row["self_repair"] == pytest.approx(sum(same) / len(same), abs=1e-12)
        assert row["depth"] == row["layer"] / {"a": 3, "b": 2}[row["model"]]


def test_several_models_have_a_panel_each_and_every_panel_the_lines_of_all() -> None:
    spec = draw(two_models()).to_dict()
    assert headings(spec) == ["a", "b"]
    points, _ = heads_in(spec)
    assert points["encoding"]["color"]["legend"] is None
    others, _ = drawn(spec, "line", "self_repair")
    # Data of its own, which a facet does not split; a line for each model.
    assert "data" in others
    assert others["encoding"]["detail"]["field"] == "model"
    assert len(others["rows"]) == 7
    assert "grey: those of the other models" in subtitle(spec)
    one = draw(heads_table("a")).to_dict()
    assert headings(one) == ["a"]
    assert "grey" not in subtitle(one)
    assert len(drawn(one, "line", "self_repair")) == 1


@pytest.mark.parametrize("missing", [float("nan"), None, float("inf")])
def test_heads_without_a_value_are_left_out_and_counted(missing: float | None) -> None:
    spec = draw(change(heads_table(), 2, 1, self_repair=missing)).to_dict()
    _, rows = heads_in(spec)
    assert len(rows) == 11
    assert (2, 1) not in {(row["layer"], row["head"]) for row in rows}
    assert "without a finite value, not drawn: 1" in subtitle(spec)
    assert "without a finite value" not in subtitle(draw(heads_table()).to_dict())


def test_an_outlier_stays_visible_at_the_edge_and_is_counted() -> None:
    table = heads_table(layers=20, heads=10, ablations=("resample",))
    spec = draw(change(table, 7, 3, self_repair=-90.0)).to_dict()
    points, rows = heads_in(spec)
    scale = points["encoding"]["y"]["scale"]
    assert scale["clamp"] is True
    low, high = scale["domain"]
    assert low > -30
    (outlier,) = (row for row in rows if row["edge"] != "within")
    assert (outlier["layer"], outlier["head"], outlier["self_repair"]) == (7, 3, -90.0)
    assert outlier["edge"] == "below"
    assert "1 of 200 points" in subtitle(spec)
    means = pl.DataFrame(rows).group_by("layer").agg(pl.col("self_repair").mean())["self_repair"]
    assert means.len() == 20
    assert means.is_between(low, high).all()


def test_more_heads_than_altair_allows_in_a_data_frame_are_drawn() -> None:
    many = pl.concat(
        heads_table(f"m{n}", layers=36, heads=20, ablations=("resample",)) for n in range(8)
    )
    _, rows = heads_in(draw(many).to_dict())
    assert len(rows) == 8 * 36 * 20


def test_the_caption_names_all_models_and_ranges() -> None:
    fewer = heads_table("b", heads=2).with_columns(n_tokens=pl.lit(200), n_prompts=pl.lit(10))
    text = caption(pl.concat([heads_table("a"), fewer], how="vertical_relaxed"))
    assert "attention heads of a and b (20 in all)" in text
    assert "200 to 1,234 tokens" in text
    assert "10 to 321 prompts" in text
    assert 2 <= len(re.findall(r"\.(?: |$)", text)) <= 4


@pytest.mark.parametrize("keep", [pl.col("ablation") == "zero", pl.lit(False)])
def test_a_table_without_its_rows_is_refused(keep: pl.Expr) -> None:
    for function in (draw, caption):
        with pytest.raises(InputError, match=r"^E1: .* ablation resample, selection top .*; run "):
            function(heads_table().filter(keep))
