"""E3 and E4 are tested on their spec, like the other figures."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from selfrepair.figures.gallery import FIGURES
from test_figures import drawn, layers_of, subtitle

from selfrepair.errors import InputError
from selfrepair.figures import plotting
from selfrepair.figures import tokens as token_figures

HEADS = ((2, 1), (3, 0), (3, 2))
REGIONS = ("breakage", "under-repair", "repair", "over-correction")
SHARES = (0.1, 0.2, 0.25, 0.45)


def region(effect: float, change: float) -> str:
    share = 1 + change / effect
    if share < 0:
        return "breakage"
    return "under-repair" if share < 0.5 else "repair" if share <= 1 else "over-correction"


def summary(quantity: str, experiment: str, **row: Any) -> dict[str, Any]:
    value = row["value"]
    bounds = {"low": value - 0.05, "high": value + 0.06}
    keys = {"model": "toy", "experiment": experiment, "quantity": quantity}
    return (
        keys
        | {"layer": None, "head": None, "group": "", "n_prompts": 7, "n_tokens": 40}
        | bounds
        | row
    )


def tokens_table(count: int = 40, seed: int = 0, model: str = "toy") -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    rows = []
    for layer, head in HEADS:
        for n in range(count):
            effect, change = draw.uniform(1, 3), draw.normal(-1, 1)
            keys = {"model": model, "layer": layer, "head": head, "prompt": n % 7, "position": n}
            effects = {"direct_effect": effect, "ablated_direct_effect": 0.1 * effect}
            effects |= {"delta_logit": change, "self_repair": change + 0.9 * effect}
            rows.append(keys | effects | {"region": region(effect, change)})
    return pl.DataFrame(rows)


def region_shares() -> pl.DataFrame:
    rows = [
        summary("region_share", "E3", layer=layer, head=head, group=f"{which}/{name}", value=value)
        for layer, head in HEADS
        for which, values in (("top", SHARES), ("all", SHARES[::-1]))
        for name, value in zip(REGIONS, values, strict=True)
    ]
    other = summary("region_share", "E3", layer=2, head=1, group="top/repair", value=0.9)
    return pl.DataFrame([*rows, other | {"model": "other"}])


def ratios_table(count: int = 40, seed: int = 0) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    keys = ("model", "ablation", "layer", "head", "prompt", "position", "ratio", "direct_effect")
    rows = [
        ("toy", ablation, *head, n % 7, n, draw.normal(1.01, 0.02), draw.uniform(1, 3))
        for ablation in ("zero", "resample", "mean")
        for head in HEADS
        for n in range(count)
    ]
    return pl.DataFrame(rows, schema=list(keys), orient="row")


def above_shares(pooled: bool = True) -> pl.DataFrame:
    rows = [
        summary("share_above_1", "E4", layer=layer, head=head, group=ablation, value=0.8)
        for ablation in ("resample", "mean", "zero")
        for layer, head in HEADS
    ]
    if pooled:
        rows.append(summary("share_above_1", "E4", group="mean", value=0.6))
    return pl.DataFrame(rows)


def change_first(table: pl.DataFrame, **values: float | None) -> pl.DataFrame:
    """The table with values of its first row replaced."""
    first = pl.int_range(pl.len()) == 0
    return table.with_columns(
        pl.when(first).then(pl.lit(value, dtype=pl.Float64)).otherwise(name).alias(name)
        for name, value in values.items()
    )


def words(spec: dict[str, Any]) -> list[str]:
    """All texts that a spec takes from data."""
    texts = (part for part in layers_of(spec) if part["mark"]["type"] == "text")
    return [row["words"] for part in texts for row in part["rows"] if "words" in row]


# E3


def test_e3_draws_each_token_once_in_its_heads_panel() -> None:
    table = tokens_table()
    spec = token_figures.tokens_effect_against_change(table, region_shares()).to_dict()
    titles = [panel["title"]["text"] for panel in spec["concat"]]
    assert titles == ["Layer 2, head 1", "Layer 3, head 0", "Layer 3, head 2"]
    for (layer, head), points in zip(HEADS, drawn(spec, "point", "delta_logit_drawn"), strict=True):
        want = table.filter(layer=layer, head=head)
        got = pl.DataFrame(points["rows"])
        for name in ("direct_effect", "delta_logit"):
            assert got[f"{name}_drawn"].to_list() == want[name].to_list()
        assert got["region"].to_list() == want["region"].to_list()
        encoding = points["encoding"]
        assert encoding["x"]["title"] == "Direct effect (logits)"
        assert encoding["color"]["field"] == "region"
        assert set(encoding["color"]["scale"]["domain"]) == set(REGIONS)
    y = drawn(spec, "point", "delta_logit_drawn")[0]["encoding"]["y"]
    assert y["title"] == "Change of the logit when ablated (logits)"


def test_e3_boundaries_part_the_regions() -> None:
    spec = token_figures.tokens_effect_against_change(tokens_table(), region_shares()).to_dict()
    x_high, y_low = (
        drawn(spec, "point", "delta_logit_drawn")[0]["encoding"][axis]["scale"]["domain"][end]
        for axis, end in (("x", 1), ("y", 0))
    )
    lines = [part["rows"] for part in drawn(spec, "line", "y")]
    assert len(lines) == 3 * len(HEADS)
    for slope, (start, stop) in zip((0, -0.5, -1), lines[:3], strict=True):
        assert start == {"x": 0.0, "y": 0.0}
        assert stop["y"] == pytest.approx(slope * stop["x"])
        assert stop["x"] == pytest.approx(x_high) or stop["y"] == pytest.approx(y_low)
        # A token just above the line is in another region than one just below it.
        assert region(1.0, slope + 1e-6) != region(1.0, slope - 1e-6)


def test_e3_prints_each_regions_share_at_its_height() -> None:
    spec = token_figures.tokens_effect_against_change(tokens_table(), region_shares()).to_dict()
    labels = [
        part
        for part in layers_of(spec)
        if part["mark"]["type"] == "text" and len(part["rows"]) == 4
    ]
    assert len(labels) == len(HEADS)
    rows = labels[0]["rows"]
    assert [row["region"] for row in rows] == list(REGIONS[::-1])
    assert rows[0]["words"] == "over-correction\n45 % [40, 51]\nall tokens: 10 %"
    assert rows[3]["words"] == "breakage\n10 % [5, 16]\nall tokens: 45 %"
    low, high = labels[0]["encoding"]["y"]["scale"]["domain"]
    heights = [row["y"] for row in rows]
    assert heights == sorted(heights, reverse=True)
    assert low < heights[-1] < heights[0] < high
    apart = 3 * plotting.LINE * (high - low) / token_figures.E3_SIDE
    assert min(a - b for a, b in pairwise(heights)) > apart


def test_e3_says_where_a_share_is_not_estimated() -> None:
    shares = region_shares().filter(pl.col("group") != "top/repair")
    spec = token_figures.tokens_effect_against_change(tokens_table(), shares).to_dict()
    assert "repair\nnot estimated\nall tokens: 20 %" in words(spec)
    nan = region_shares().with_columns(low=pl.lit(float("nan")))
    spec = token_figures.tokens_effect_against_change(tokens_table(), nan).to_dict()
    assert "repair\n25 %\nall tokens: 20 %" in words(spec)


def test_spread_keeps_labels_apart_and_inside() -> None:
    for places in (
        [0.0] * 4,
        [300.0] * 4,
        [10.0, 150.0, 155.0, 299.0],
        [30.0, 100.0, 200.0, 260.0],
    ):
        moved = token_figures.spread(places, 47, 300)
        assert all(b - a >= 47 - 1e-9 for a, b in pairwise(moved))
        assert moved[0] >= 47 / 2 - 1e-9
        assert moved[-1] <= 300 - 47 / 2 + 1e-9
    assert moved == places  # no reason to move those


def test_e3_density_conserves_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plotting, "MOST_POINTS", 100)
    monkeypatch.setattr(token_figures, "MOST_POINTS", 100)
    table = tokens_table(500)
    table = change_first(table, delta_logit=-400.0)
    spec = token_figures.tokens_effect_against_change(table, region_shares()).to_dict()
    cells = [part for part in layers_of(spec) if part["mark"]["type"] == "rect"]
    beyond = [row for part in drawn(spec, "point", "delta_logit_drawn") for row in part["rows"]]
    assert len(cells) == len(HEADS)
    counts = [sum(row["count"] for row in part["rows"]) for part in cells]
    assert counts == [499, 500, 500]
    assert [row["edge"] for row in beyond] == ["below the axis"]
    first = cells[0]
    assert first["encoding"]["fill"]["scale"]["type"] == "log"
    want = table.filter(layer=2, head=1)
    for row in first["rows"][::7]:
        inside = want.filter(
            pl.col("direct_effect").is_between(row["x_start"], row["x_stop"], closed="left"),
            pl.col("delta_logit").is_between(row["y_start"], row["y_stop"], closed="left"),
        )
        assert inside.height == row["count"] > 0
    assert "in 3 of 3 panels" in subtitle(spec)
    assert "1 of 1,500 points" in subtitle(spec)
    assert "The darker a cell" in token_figures.caption_e3(table, region_shares())


def test_e3_counts_tokens_without_a_value_and_of_negative_effect() -> None:
    table = change_first(tokens_table(), delta_logit=None)
    table = table.with_columns(
        direct_effect=pl.when(pl.int_range(pl.len()) == 1).then(-0.5).otherwise("direct_effect")
    )
    spec = token_figures.tokens_effect_against_change(table, region_shares()).to_dict()
    json.dumps(spec, allow_nan=False)
    assert "without a finite value, not drawn: 1" in subtitle(spec)
    assert "to which no line applies: 1" in subtitle(spec)
    assert len(drawn(spec, "point", "delta_logit_drawn")[0]["rows"]) == 39


# E4


def test_e4_panels_are_ablations_by_heads() -> None:
    spec = token_figures.scale_ratio_histogram(ratios_table(), above_shares()).to_dict()
    assert spec["columns"] == len(HEADS)
    bars = drawn(spec, "bar", "share")
    assert len(bars) == 9
    titles = [bar["encoding"]["y"]["title"] for bar in bars]
    assert [title and title[0] for title in titles[::3]] == ["Resample:", "Mean:", "Zero:"]
    assert titles[1] is None
    assert [panel.get("title") for panel in spec["concat"][:3]] == [
        "Layer 2, head 1",
        "Layer 3, head 0",
        "Layer 3, head 2",
    ]
    assert bars[-1]["encoding"]["x"]["title"] == "S / S' (ratio)"
    domains = {str(bar["encoding"]["x"]["scale"]["domain"]) for bar in bars}
    assert len(domains) == 1


def test_e4_bins_hold_every_token_and_part_at_one() -> None:
    table = ratios_table()
    table = table.with_columns(
        ratio=pl.when(pl.int_range(pl.len()) == 5).then(1.0).otherwise("ratio")
    )
    spec = token_figures.scale_ratio_histogram(table, above_shares()).to_dict()
    keys = [(a, *head) for a in ("resample", "mean", "zero") for head in HEADS]
    for (ablation, layer, head), bars in zip(keys, drawn(spec, "bar", "share"), strict=True):
        ratios = table.filter(ablation=ablation, layer=layer, head=head)["ratio"]
        assert sum(row["count"] for row in bars["rows"]) == 40
        assert sum(row["share"] for row in bars["rows"]) == pytest.approx(1)
        for row in bars["rows"]:
            inside = (ratios > row["start"]) & (ratios <= row["stop"])
            assert inside.sum() == row["count"]
            assert row["stop"] <= 1 or row["start"] >= 1
    rules = [part for part in layers_of(spec) if part["mark"]["type"] == "rule"]
    assert {row["place"] for part in rules for row in part["rows"]} == {1.0}


def test_e4_prints_shares_and_counts_what_is_beyond() -> None:
    table = change_first(ratios_table(), ratio=30.0)
    spec = token_figures.scale_ratio_histogram(table, above_shares()).to_dict()
    assert words(spec).count("above 1: 80 %\n[75, 86]") == 2 * 9
    assert words(spec).count("1 beyond") == 2
    assert "1 of 360 points" in subtitle(spec)
    assert "resample not estimated, mean 60 % [55, 66], zero not estimated" in subtitle(spec)
    assert sum(row["count"] for bar in drawn(spec, "bar", "share") for row in bar["rows"]) == 359
    spec = token_figures.scale_ratio_histogram(table, above_shares(pooled=False)).to_dict()
    assert "over all" not in subtitle(spec)


# Both


TABLES = {
    "E3": (tokens_table, region_shares, "tokens", "delta_logit"),
    "E4": (ratios_table, above_shares, "scale_ratios", "ratio"),
}


@pytest.mark.parametrize("figure", TABLES)
def test_captions_take_their_numbers_from_the_table(figure: str) -> None:
    table, summaries, _, _ = TABLES[figure]
    text = FIGURES[figure].caption(table(), summaries())
    for part in ("toy", "resample", "40 tokens per head", "7 prompts", "L2H1, L3H0 and L3H2"):
        assert part in text
    assert 2 <= len(re.findall(r"\.(?: |$)", text)) <= 5


@pytest.mark.parametrize("figure", TABLES)
def test_figures_are_pure(figure: str) -> None:
    table, summaries = (make() for make in TABLES[figure][:2])
    before = table.clone(), summaries.clone()
    spec = FIGURES[figure].draw(table, summaries).to_dict()
    assert spec == FIGURES[figure].draw(table, summaries).to_dict()
    assert table.equals(before[0])
    assert summaries.equals(before[1])
    json.dumps(spec, allow_nan=False)


@pytest.mark.parametrize("figure", TABLES)
def test_two_tokens_of_one_head_can_be_drawn(figure: str) -> None:
    table, summaries, _, _ = TABLES[figure]
    few = table(2).filter(layer=3, head=0)
    assert FIGURES[figure].draw(few, summaries()).to_dict()["concat"]
    assert "head L3H0 of toy" in FIGURES[figure].caption(few, summaries())


@pytest.mark.parametrize("figure", TABLES)
def test_input_is_refused_in_one_line(figure: str) -> None:
    make, summaries, name, column = TABLES[figure]
    table, shares = make(), summaries()
    nan = table.with_columns(pl.lit(float("nan")).alias(column))
    two = pl.concat([table, table.with_columns(model=pl.lit("b"))])
    wrong = {
        f"the {name} table has no column {column}; write": (table.drop(column), shares),
        f"the {name} table has no rows with finite .*{column}; run": (nan, shares),
        "the .* table has no rows": (table.head(0), shares),
        "takes one model, got toy and b; filter": (two, shares),
        "summaries table has no column group; write": (table, shares.drop("group")),
        "no [a-z_1]+ of experiment E[34] for toy; write": (table, shares.head(0)),
    }
    for message, tables in wrong.items():
        for call in (FIGURES[figure].draw, FIGURES[figure].caption):
            with pytest.raises(
                InputError, match=rf"^{figure}: .*{message}[^\n]*$|^{figure}: {message}[^\n]*$"
            ):
                call(*tables)
