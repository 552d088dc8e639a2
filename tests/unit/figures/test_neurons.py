"""E7 to E10 are tested on their spec, like the other figures."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import polars as pl
import pytest
from selfrepair.figures.gallery import FIGURES
from test_figures import drawn, layers_of, subtitle
from test_token_figures import change_first, summary, words

from selfrepair.errors import InputError
from selfrepair.figures import neurons as neuron_figures
from selfrepair.figures import plotting

HEADS = ((2, 1), (3, 0))
THRESHOLDS = (0.5, 0.1, 0.05, 0.025, 0.01)
COUNTS = {"n_tokens": 40, "n_prompts": 7}


def keys(layer: int, head: int, mlp: int = 3) -> dict[str, Any]:
    return {"model": "toy", "layer": layer, "head": head, "mlp_layer": mlp}


def ranks_table(mlps: tuple[int, ...] = (3,)) -> pl.DataFrame:
    rows = []
    for head in HEADS:
        for mlp in mlps:
            for threshold in THRESHOLDS:
                for rank in range(1, 21):
                    share = float(np.exp(-threshold * rank * 2)) * 0.9
                    bounds = {"share": share, "low": share - 0.01, "high": share + 0.02}
                    row = keys(*head, mlp) | {"rank": rank, "threshold": threshold}
                    rows.append(row | bounds | COUNTS)
    return pl.DataFrame(rows).sample(fraction=1, shuffle=True, seed=0)


def curve_table(neurons: int = 200) -> pl.DataFrame:
    ends = (1, 3, 10, 50, 120, neurons)
    rows = [
        keys(*head)
        | {"rank_end": end, "n_neurons": neurons, "cumulative_share": (end / neurons) ** 0.5}
        | {"median_direct_effect": effect * (1 + head[1])}
        | COUNTS
        for head in HEADS
        for end, effect in zip(ends, (-0.4, -0.2, -0.1, 0.0, 0.05, 0.1), strict=True)
    ]
    return pl.DataFrame(rows)


def region(clean: float, ablated: float) -> str:
    if clean >= 0:
        return "adds more or less"
    if ablated > 0:
        return "erasure reversed"
    return "erases less" if ablated > clean else "erases more"


def top_table(count: int = 40) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    rows = []
    for head in HEADS:
        for n in range(count):
            clean = draw.normal(-0.5, 0.5)
            ablated = clean + draw.normal(0.4, 0.3)
            row = {"prompt": n % 7, "position": n, "neuron": n % 11, "direct_effect": clean}
            row |= {"ablated_direct_effect": ablated, "mlp_direct_effect": draw.normal(-0.3, 1)}
            rows.append(keys(*head) | row | {"region": region(clean, ablated)})
    return pl.DataFrame(rows)


def erasure_shares(group: str = "MLP 3") -> pl.DataFrame:
    keys = {"quantity": "anti_erasure_share", "experiment": "E9", "group": group}
    rows = [
        summary(**keys, layer=layer, head=head, value=0.7 + 0.1 * head) for layer, head in HEADS
    ]
    return pl.DataFrame([*rows, summary(**keys, value=0.2)], infer_schema_length=None)


def counts_table() -> pl.DataFrame:
    instances = {0: (8, 40, 3, 3, 3, 3, 1), 1: (5, 5, 20)}
    rows = [
        keys(layer, head)
        | {"neuron": 100 + n, "instances": count, "prompts": min(count, 7)}
        | COUNTS
        for layer, head in HEADS
        for n, count in enumerate(instances[head])
    ]
    return pl.DataFrame(rows)


# E7


def test_e7_has_a_line_per_threshold_in_order_of_rank() -> None:
    table = ranks_table()
    spec = neuron_figures.neuron_ranks(table).to_dict()
    assert [panel["title"] for panel in spec["concat"]] == ["Layer 2, head 1", "Layer 3, head 0"]
    for (layer, head), line in zip(HEADS, drawn(spec, "line", "share"), strict=True):
        assert len(line["rows"]) == 100
        for threshold, level in zip(
            THRESHOLDS, ("50 %", "10 %", "5 %", "2.5 %", "1 %"), strict=True
        ):
            want = table.filter(layer=layer, head=head, threshold=threshold).sort("rank")
            got = [row for row in line["rows"] if row["level"] == level]
            assert [row["rank"] for row in got] == list(range(1, 21))
            assert [row["share"] for row in got] == want["share"].to_list()
        colour = line["encoding"]["color"]
        assert colour["scale"]["domain"] == ["50 %", "10 %", "5 %", "2.5 %", "1 %"]
        assert line["encoding"]["y"]["axis"]["format"] == ".0%"
    bands = drawn(spec, "area", "low")
    assert bands[0]["encoding"]["y2"]["field"] == "high"
    # One legend for both: a band without it would also remove that of the lines.
    assert bands[0]["encoding"]["color"] == drawn(spec, "line", "share")[0]["encoding"]["color"]
    assert drawn(spec, "line", "share")[0]["encoding"]["y"]["title"] == "Share of instances (%)"


def test_e7_has_a_panel_per_mlp_where_there_are_several() -> None:
    spec = neuron_figures.neuron_ranks(ranks_table((2, 3))).to_dict()
    titles = [panel["title"] for panel in spec["concat"]]
    assert titles[:2] == ["Layer 2, head 1; MLP of layer 2", "Layer 2, head 1; MLP of layer 3"]
    assert len(titles) == 4
    assert "the MLPs of layers 2 and 3" in subtitle(spec)


def test_e7_shows_what_is_missing() -> None:
    table = change_first(ranks_table(), share=None)
    spec = neuron_figures.neuron_ranks(table).to_dict()
    assert sum(len(line["rows"]) for line in drawn(spec, "line", "share")) == 199
    assert "without a finite value, not drawn: 1" in subtitle(spec)
    no_band = ranks_table().with_columns(low=pl.lit(float("nan")))
    spec = neuron_figures.neuron_ranks(no_band).to_dict()
    assert [band["rows"] for band in drawn(spec, "area", "low")] == [[], []]


# E8


def test_e8_draws_the_curve_against_the_share_of_neurons() -> None:
    spec = neuron_figures.neuron_curve(curve_table()).to_dict()
    points = drawn(spec, "point", "cumulative_share")
    assert len(points) == 2
    assert [row["neurons"] for row in points[0]["rows"]] == [0.005, 0.015, 0.05, 0.25, 0.6, 1.0]
    assert points[0]["rows"][2]["cumulative_share"] == pytest.approx(0.05**0.5)
    encoding = points[0]["encoding"]
    assert encoding["x"]["title"] == "Neurons, most repairing first (%)"
    assert encoding["y"]["title"] == "Share of the absolute change (%)"
    low, middle, high = encoding["color"]["scale"]["domain"]
    assert -low == high > 0 == middle
    assert len(set(encoding["color"]["scale"]["range"])) == 3
    curve = drawn(spec, "line", "y")[1]["rows"]
    assert curve[0] == {"x": 0.0, "y": 0.0}
    assert len(curve) == 7


def test_e8_marks_the_first_percent_of_the_neurons() -> None:
    spec = neuron_figures.neuron_curve(curve_table()).to_dict()
    rules = [part for part in layers_of(spec) if part["mark"]["type"] == "rule"]
    assert [part["rows"][0]["place"] for part in rules] == [0.01, 0.01]
    # Halfway between 1 and 3 of 200 neurons.
    half = (0.005**0.5 + 0.015**0.5) / 2
    assert f"first 1 %: {100 * half:.0f} % of the change" in words(spec)
    few = neuron_figures.neuron_curve(curve_table(160).with_columns(n_neurons=pl.lit(90))).to_dict()
    assert words(few) == []


def test_e8_counts_points_beyond_the_colours() -> None:
    table = change_first(curve_table(), median_direct_effect=-90.0)
    spec = neuron_figures.neuron_curve(table).to_dict()
    assert "in its last colour: 1 points" in subtitle(spec)
    assert "last colour" not in subtitle(neuron_figures.neuron_curve(curve_table()).to_dict())
    table = change_first(curve_table(), median_direct_effect=None)
    spec = neuron_figures.neuron_curve(table).to_dict()
    assert "without a value for their colour: 1" in subtitle(spec)


# E9


def test_e9_draws_each_instance_on_axes_of_one_scale() -> None:
    table = top_table()
    spec = neuron_figures.top_neuron_effects(table, erasure_shares()).to_dict()
    for (layer, head), points in zip(
        HEADS, drawn(spec, "point", "ablated_direct_effect_drawn"), strict=True
    ):
        want = table.filter(layer=layer, head=head)
        got = pl.DataFrame(points["rows"])
        for name in ("direct_effect", "ablated_direct_effect"):
            assert got[f"{name}_drawn"].to_list() == want[name].to_list()
        encoding = points["encoding"]
        assert encoding["x"]["scale"]["domain"] == encoding["y"]["scale"]["domain"]
        assert encoding["color"]["field"] == "mlp_direct_effect"
        low, middle, high = encoding["color"]["scale"]["domain"]
        assert -low == high > 0 == middle
    for line in drawn(spec, "line", "y"):
        assert all(row["x"] == row["y"] for row in line["rows"])
        assert [row["x"] for row in line["rows"]] == encoding["x"]["scale"]["domain"]
    assert encoding["x"]["title"] == "Neuron's direct effect, clean (logits)"


def test_e9_prints_regions_and_anti_erasure() -> None:
    table = top_table()
    spec = neuron_figures.top_neuron_effects(table, erasure_shares()).to_dict()
    notes = [panel["title"]["subtitle"] for panel in spec["concat"]]
    assert notes == [
        "anti-erasure: 80 % [75, 86] of 40 instances",
        "anti-erasure: 70 % [65, 76] of 40 instances",
    ]
    shares = {
        name: (table.filter(layer=2, head=1)["region"] == name).mean()
        for name in neuron_figures.REGIONS
    }
    printed = {f"{name}\n{100 * share:.0f} %": name for name, share in shares.items()}
    # A name stands inside the region that it names.
    names = [
        part["rows"][0] | {"dx": part["mark"]["dx"], "dy": part["mark"]["dy"]}
        for part in layers_of(spec)
        if part["mark"]["type"] == "text" and part["rows"][0].get("words") in printed
    ]
    assert {name["words"] for name in names} == set(printed)
    for name in names:
        step = 0.1
        x = name["x"] + step * np.sign(name["dx"])
        y = name["y"] - step / 2 * np.sign(name["dy"])
        assert region(x, y) == printed[name["words"]]


def test_e9_has_a_panel_and_a_share_per_mlp() -> None:
    both = pl.concat([top_table(), top_table().with_columns(mlp_layer=pl.lit(2, dtype=pl.Int64))])
    shares = pl.concat(
        [erasure_shares(), erasure_shares("MLP 2").with_columns(value=pl.col("value") - 0.5)]
    )
    spec = neuron_figures.top_neuron_effects(both, shares).to_dict()
    titles = [panel["title"]["text"] for panel in spec["concat"]]
    assert titles[:2] == ["Layer 2, head 1; MLP of layer 2", "Layer 2, head 1; MLP of layer 3"]
    notes = [panel["title"]["subtitle"][:18] for panel in spec["concat"]]
    assert notes[:2] == ["anti-erasure: 30 %", "anti-erasure: 80 %"]
    assert "40 tokens per head" in subtitle(spec)
    single = neuron_figures.top_neuron_effects(top_table(), erasure_shares("")).to_dict()
    assert single["concat"][0]["title"]["subtitle"].startswith("anti-erasure: 80 %")


def test_e9_density_conserves_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plotting, "MOST_POINTS", 100)
    table = change_first(top_table(300), ablated_direct_effect=500.0)
    spec = neuron_figures.top_neuron_effects(table, erasure_shares()).to_dict()
    cells = [part for part in layers_of(spec) if part["mark"]["type"] == "rect"]
    assert [sum(row["count"] for row in part["rows"]) for part in cells] == [299, 300]
    (beyond,) = drawn(spec, "point", "ablated_direct_effect_drawn")
    assert [row["edge"] for row in beyond["rows"]] == ["above the axis"]
    assert "density, in 2 of 2 panels" in subtitle(spec)
    assert "1 of 600 points" in subtitle(spec)


# E10


def test_e10_sorts_neurons_by_how_often_they_occur() -> None:
    spec = neuron_figures.neuron_counts(counts_table()).to_dict()
    dots = drawn(spec, "point", "share")
    assert [len(part["rows"]) for part in dots] == [3, 7]
    assert [row["rank"] for row in dots[1]["rows"]] == list(range(1, 8))
    shares = [row["share"] for row in dots[1]["rows"]]
    assert shares == [1.0, 0.2, 0.075, 0.075, 0.075, 0.075, 0.025]
    assert [row["neuron"] for row in dots[1]["rows"]][:3] == [101, 100, 102]
    lines = [part for part in drawn(spec, "line", "share") if len(part["rows"][0]) > 2]
    assert [row["rank"] for row in lines[1]["rows"]] == [1, 2, 3, 6, 7]
    assert dots[0]["encoding"]["x"]["scale"]["type"] == "log"
    assert dots[0]["encoding"]["y"]["title"] == "Instances with it in the top 10 (%)"


def test_e10_names_the_most_frequent_and_counts_the_different() -> None:
    spec = neuron_figures.neuron_counts(counts_table()).to_dict()
    notes = [" ".join(panel["title"]["subtitle"]) for panel in spec["concat"]]
    assert notes[1] == (
        "7 different neurons; most frequent: neuron 101, in 40 of 40 instances, 7 of 7 prompts"
    )
    # Both heads share neurons 100 to 102.
    assert "at least one instance: 7;" in subtitle(spec)
    assert "; 7 different neurons occur" in neuron_figures.caption_e10(counts_table())


def test_e10_draws_a_line_alone_where_points_would_be_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neuron_figures, "MOST_POINTS", 5)
    spec = neuron_figures.neuron_counts(counts_table()).to_dict()
    assert [len(part["rows"]) for part in drawn(spec, "point", "share")] == [3]


# All


TABLES = {
    "E7": (lambda: (ranks_table(),), "neuron_ranks", "share"),
    "E8": (lambda: (curve_table(),), "neuron_curve", "cumulative_share"),
    "E9": (lambda: (top_table(), erasure_shares()), "top_neurons", "ablated_direct_effect"),
    "E10": (lambda: (counts_table(),), "neuron_counts", "instances"),
}


@pytest.mark.parametrize("figure", TABLES)
def test_captions_take_their_numbers_from_the_table(figure: str) -> None:
    text = FIGURES[figure].caption(*TABLES[figure][0]())
    for part in ("toy", "40 tokens per head", "7 prompts", "L2H1 and L3H0", "layer 3", "ablat"):
        assert part in text
    assert 2 <= len(re.findall(r"\.(?: |$)", text)) <= 5


@pytest.mark.parametrize("figure", TABLES)
def test_figures_are_pure_and_name_model_and_ablation(figure: str) -> None:
    tables = TABLES[figure][0]()
    before = [table.clone() for table in tables]
    spec = FIGURES[figure].draw(*tables).to_dict()
    assert spec == FIGURES[figure].draw(*tables).to_dict()
    assert all(table.equals(old) for table, old in zip(tables, before, strict=True))
    json.dumps(spec, allow_nan=False)
    assert "toy, resample ablation" in subtitle(spec)
    assert "40 tokens per head" in subtitle(spec)


@pytest.mark.parametrize("figure", TABLES)
def test_one_head_with_one_row_can_be_drawn(figure: str) -> None:
    table, *others = TABLES[figure][0]()
    assert FIGURES[figure].draw(table.head(1), *others).to_dict()["concat"]
    assert "head L" in FIGURES[figure].caption(table.head(1), *others)


@pytest.mark.parametrize("figure", TABLES)
def test_input_is_refused_in_one_line(figure: str) -> None:
    make, name, column = TABLES[figure]
    table, *others = make()
    wrong = {
        f"the {name} table has no column {column}; write": table.drop(column),
        f"the {name} table has no rows with finite .*{column}.*; run": table.with_columns(
            pl.lit(None, dtype=pl.Float64).alias(column)
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


def test_e9_needs_the_models_shares() -> None:
    other = erasure_shares().with_columns(model=pl.lit("other"))
    with pytest.raises(InputError, match=r"^E9: .* no anti_erasure_share .* for toy; write"):
        neuron_figures.top_neuron_effects(top_table(), other)
