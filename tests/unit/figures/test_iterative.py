"""E11a and E11b are tested on their spec, like the other figures."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import polars as pl
import pytest
from selfrepair.figures.gallery import FIGURES
from test_figures import drawn, layers_of, subtitle
from test_token_figures import change_first, summary

from selfrepair.errors import InputError
from selfrepair.figures import iterative as iterative_figures
from selfrepair.figures import plotting

COUNTS = {"n_tokens": 40, "n_prompts": 7}


def repression_table(layers: int = 6, heads: int = 3) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    rows = []
    for layer in range(layers // 2, layers):
        for head in range(heads):
            for kind in ("random", "own", "other"):
                for scaling in (5.0, 1.0, 3.0):
                    slope = 1 - scaling * draw.uniform(0, 0.1)
                    row: dict[str, Any] = {"model": "toy", "layer": layer, "head": head}
                    row |= {"kind": kind, "scaling": scaling, "slope": slope}
                    rows.append(
                        row | {"slope_low": slope - 0.02, "slope_high": slope + 0.03} | COUNTS
                    )
    return pl.DataFrame(rows)


def refeeding_table(layers: int = 4, heads: int = 3) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    rows = [
        {"model": "toy", "layer": layer, "head": head, "next_head": following}
        | {"refeed_change": draw.normal(0, 0.1), "ablation_change": draw.normal(0, 0.05)}
        | COUNTS
        for layer in range(layers - 1)
        for head in range(heads)
        for following in range(heads)
    ]
    return pl.DataFrame(rows)


def correlations(*pairs: float | None) -> pl.DataFrame:
    keys = {"quantity": "change_correlation", "experiment": "E11", "group": "top"}
    rows = [summary(**keys, value=0.52)]
    for layer, value in enumerate(pairs or (0.4, -0.2, 0.6)):
        row = summary(**keys, layer=layer, value=value or 0.0)
        rows.append(row | {"value": value})
    return pl.DataFrame(rows, schema_overrides={"layer": pl.Int32, "head": pl.Int32})


# E11a


def test_e11a_has_a_panel_per_scaling_with_every_head_and_kind() -> None:
    table = repression_table()
    spec = iterative_figures.self_repression(table).to_dict()
    titles = [panel["title"] for panel in spec["vconcat"]]
    assert titles == ["1 × the vector", "3 × the vector", "5 × the vector"]
    keys = ["layer", "head", "kind"]
    for scaling, points in zip((1, 3, 5), drawn(spec, "point", "slope_drawn"), strict=True):
        want = table.filter(scaling=scaling).sort(keys).select(*keys, "slope")
        got = pl.DataFrame(points["rows"]).sort(keys)
        assert got.select(*keys, "slope").equals(want)
        assert got["slope_drawn"].to_list() == want["slope"].to_list()
        for row in points["rows"]:
            assert abs(row["place_x"] - row["layer"]) < 0.5
        assert points["encoding"]["y"]["title"] == "Slope, new / old effect"
        assert points["encoding"]["x"]["scale"]["domain"] == [2.5, 5.5]
        colour = points["encoding"]["color"]
        assert colour["scale"]["domain"] == [
            "its own output",
            "a random direction",
            "another head's output",
        ]
    rules = [row["level"] for part in drawn(spec, "rule", "level") for row in part["rows"]]
    assert rules == [1.0] * 3


def test_e11a_lines_join_layer_means() -> None:
    table = repression_table()
    spec = iterative_figures.self_repression(table).to_dict()
    lines = drawn(spec, "line", "slope")
    for scaling, line in zip((1, 3, 5), lines, strict=True):
        assert len(line["rows"]) == 3 * 3
        for row in line["rows"]:
            same = table.filter(scaling=scaling, kind=row["kind"], layer=row["place_x"])
            assert row["slope"] == pytest.approx(np.mean(same["slope"].to_list()))


def test_e11a_bars_outliers_and_missing() -> None:
    table = change_first(repression_table(20, 4), slope=-70.0)
    table = table.with_columns(
        slope=pl.when(pl.int_range(pl.len()) == 7).then(float("nan")).otherwise("slope")
    )
    spec = iterative_figures.self_repression(table).to_dict()
    json.dumps(spec, allow_nan=False)
    assert len(drawn(spec, "rule", "slope_low")) == 3
    marks = [row for part in drawn(spec, "point", "slope_drawn") for row in part["rows"]]
    beyond = [row for row in marks if row["edge"] == "below the axis"]
    assert [(row["layer"], row["head"], row["slope"]) for row in beyond] == [(10, 0, -70.0)]
    assert "1 of 359 points" in subtitle(spec)
    assert "without a finite value, not drawn: 1" in subtitle(spec)
    assert "bar: 95 % interval" in subtitle(spec)
    large = iterative_figures.self_repression(repression_table(30, 10)).to_dict()
    assert drawn(large, "rule", "slope_low") == []
    assert "bar: 95 %" not in subtitle(large)


def test_e11a_refuses_an_unknown_kind() -> None:
    table = repression_table().with_columns(kind=pl.lit("noise"))
    with pytest.raises(InputError, match=r"^E11a: .*kind noise; allowed are own, random, other$"):
        iterative_figures.self_repression(table)


# E11b


def test_e11b_draws_every_pair_of_heads_and_y_equals_x() -> None:
    table = refeeding_table()
    spec = iterative_figures.refeeding(table, correlations()).to_dict()
    (points,) = drawn(spec, "point", "ablation_change_drawn")
    got = pl.DataFrame(points["rows"])
    for name in ("refeed_change", "ablation_change"):
        assert got[f"{name}_drawn"].to_list() == table[name].to_list()
    assert points["encoding"]["color"]["field"] == "layer"
    for axis in ("x", "y"):
        assert "(logits)" in points["encoding"][axis]["title"]
    (line,) = drawn(spec, "line", "y")
    assert all(row["x"] == row["y"] for row in line["rows"])
    ends = [points["encoding"][axis]["scale"]["domain"] for axis in ("x", "y")]
    assert line["rows"][0]["x"] == max(end[0] for end in ends)
    assert line["rows"][1]["x"] == min(end[1] for end in ends)
    assert "0.52 [0.47, 0.58]" in subtitle(spec)


def test_e11b_draws_the_correlation_of_each_pair_of_layers() -> None:
    spec = iterative_figures.refeeding(refeeding_table(), correlations(0.4, None, 0.6)).to_dict()
    (points,) = drawn(spec, "point", "value")
    assert [(row["layer"], row["value"]) for row in points["rows"]] == [(0, 0.4), (2, 0.6)]
    assert "without a correlation, not drawn: 1" in subtitle(spec)
    assert points["encoding"]["y"]["title"] == "Correlation (no unit)"
    levels = [row["level"] for part in drawn(spec, "rule", "level") for row in part["rows"]]
    assert 0.52 in levels
    pooled = correlations().filter(pl.col("layer").is_null())
    spec = iterative_figures.refeeding(refeeding_table(), pooled).to_dict()
    assert len(spec["hconcat"]) == 1
    assert "on the right" not in iterative_figures.caption_e11b(refeeding_table(), pooled)


def test_e11b_density_conserves_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plotting, "MOST_POINTS", 100)
    table = change_first(refeeding_table(8, 6), refeed_change=80.0)
    spec = iterative_figures.refeeding(table, correlations()).to_dict()
    (cells,) = (
        part
        for part in layers_of(spec)
        if part["mark"]["type"] == "rect" and "fill" in part["encoding"]
    )
    assert sum(row["count"] for row in cells["rows"]) == 7 * 36 - 1
    (beyond,) = drawn(spec, "point", "ablation_change_drawn")
    assert [row["edge"] for row in beyond["rows"]] == ["right of the axis"]
    assert "drawn as a density, in the panel" in subtitle(spec)
    assert "The darker a cell" in iterative_figures.caption_e11b(table, correlations())


def test_e11b_needs_the_pooled_correlation() -> None:
    per_pair = correlations().drop_nulls("layer")
    for summaries, message in (
        (per_pair, "no change_correlation of all layers .*; write"),
        (correlations().head(0), "no change_correlation of experiment E11 for toy; write"),
    ):
        with pytest.raises(InputError, match=rf"^E11b: .*{message}[^\n]*$"):
            iterative_figures.refeeding(refeeding_table(), summaries)


# Both


TABLES = {
    "E11a": (lambda: (repression_table(),), "self_repression", "slope"),
    "E11b": (lambda: (refeeding_table(), correlations()), "refeeding", "ablation_change"),
}


@pytest.mark.parametrize("figure", TABLES)
def test_captions_take_their_numbers_from_the_table(figure: str) -> None:
    text = FIGURES[figure].caption(*TABLES[figure][0]())
    for part in ("toy", "40 tokens per head", "7 prompts", "ablat", "direct effect"):
        assert part in text
    assert 2 <= len(re.findall(r"[.?](?: |$)", text)) <= 5
    count = {"E11a": "9 heads", "E11b": "27 pairs"}[figure]
    assert count in text


def test_e11a_caption_names_the_scalings() -> None:
    assert "1, 3 and 5 times a vector" in iterative_figures.caption_e11a(repression_table())


@pytest.mark.parametrize("figure", TABLES)
def test_figures_are_pure_and_name_model_and_ablation(figure: str) -> None:
    tables = TABLES[figure][0]()
    before = [table.clone() for table in tables]
    spec = FIGURES[figure].draw(*tables).to_dict()
    assert spec == FIGURES[figure].draw(*tables).to_dict()
    assert all(table.equals(old) for table, old in zip(tables, before, strict=True))
    json.dumps(spec, allow_nan=False)
    ablation = {"E11a": "nothing ablated", "E11b": "resample ablation"}[figure]
    assert f"toy, {ablation}" in subtitle(spec)
    assert "40 tokens per head, 7 prompts" in subtitle(spec)


@pytest.mark.parametrize("figure", TABLES)
def test_a_single_row_can_be_drawn(figure: str) -> None:
    table, *others = TABLES[figure][0]()
    assert FIGURES[figure].draw(table.head(1), *others).to_dict()["title"]["text"]


@pytest.mark.parametrize("figure", TABLES)
def test_input_is_refused_in_one_line(figure: str) -> None:
    make, name, column = TABLES[figure]
    table, *others = make()
    wrong = {
        f"the {name} table has no column {column}; write": table.drop(column),
        f"the {name} table has no rows with finite .*{column}; run": table.with_columns(
            pl.lit(float("inf")).alias(column)
        ),
        f"the {name} table has no rows .*; run": table.head(0),
        "takes one model, got toy and b; filter": pl.concat(
            [table, table.with_columns(model=pl.lit("b"))]
        ),
    }
    for message, bad in wrong.items():
        for call in (FIGURES[figure].draw, FIGURES[figure].caption):
            with pytest.raises(InputError, match=rf"^{figure}: {message}[^\n]*$"):
                call(bad, *others)
