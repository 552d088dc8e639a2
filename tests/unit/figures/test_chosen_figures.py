"""What the figures of the experiments on chosen heads promise alike: E3, E4 and E7 to E11b."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import polars as pl
import pytest

import chosen_tables as made
from figure_specs import layers_of, subtitle
from selfrepair.catalogue import FIGURES
from selfrepair.errors import InputError
from selfrepair.figures.rows import NotMeasured
from selfrepair.vocabulary import NO_NEURONS

# Per figure: what makes its tables, and a column of the first that must be finite.
TABLES: dict[str, tuple[Callable[[], tuple[pl.DataFrame, ...]], str]] = {
    "E3": (lambda: (made.tokens(), made.region_shares()), "delta_logit"),
    "E4": (lambda: (made.scale_ratios(), made.above_shares()), "ratio"),
    "E7": (lambda: (made.neuron_ranks(),), "share"),
    "E8": (lambda: (made.neuron_curve(),), "cumulative_share"),
    "E9": (lambda: (made.top_neurons(), made.erasure_shares()), "ablated_direct_effect"),
    "E10": (lambda: (made.neuron_counts(),), "instances"),
    "E11a": (lambda: (made.self_repression(),), "slope"),
    "E11b": (lambda: (made.refeeding(), made.correlations()), "ablation_change"),
}
# Left in words where a model has no neurons to measure.
OF_NEURONS = ("E7", "E8", "E9", "E10")
CATALOGUE = {figure.key: figure for figure in FIGURES}
OF_HEADS = "L2H1, L3H0 and L3H2"
SAMPLE = "40 tokens per head, 7 prompts"
# What a caption must say: the heads or their number, and what is ablated.
SAID = {key: (OF_HEADS, "resample ablation") for key in ("E3", "E7", "E8", "E9", "E10")} | {
    "E4": (OF_HEADS, "resample, mean and zero ablation"),
    "E11a": ("9 heads", "Nothing is ablated", "1, 3 and 5 times a vector"),
    "E11b": ("27 pairs", "resample ablation", "0.52 [0.47, 0.58]"),
}

# Of these figures' tokens only some were drawn.
DRAWN = tuple(key for key in TABLES if key != "E11b")


def module_of(key: str) -> Any:
    return importlib.import_module(f"selfrepair.figures.{CATALOGUE[key].module}")


@cache
def drawn_of(key: str) -> tuple[dict[str, Any], str]:
    """The specification and the caption of a figure of its made up tables, drawn once for all tests."""
    tables = TABLES[key][0]()
    return module_of(key).draw(*tables).to_dict(), module_of(key).caption(*tables)


@pytest.mark.parametrize("key", TABLES)
def test_captions_say_model_ablation_tokens_and_how_to_read_it(key: str) -> None:
    _, text = drawn_of(key)
    for part in ("toy", SAMPLE, "direct effect", *SAID[key]):
        assert part in text
    assert 2 <= len(re.findall(r"[.?](?: |$)", text)) <= 6


@pytest.mark.parametrize("key", TABLES)
def test_captions_and_subtitles_say_which_top_tokens_were_measured(key: str) -> None:
    spec, text = drawn_of(key)
    said = "tokens from each head's top" if key in DRAWN else "lie in the experiment's prompts"
    assert said in subtitle(spec)
    assert said in text


@pytest.mark.parametrize("key", TABLES)
def test_figures_are_pure_and_say_what_is_drawn(key: str) -> None:
    tables = TABLES[key][0]()
    before = [table.clone() for table in tables]
    spec = module_of(key).draw(*tables).to_dict()
    assert spec == drawn_of(key)[0]
    assert all(table.equals(old) for table, old in zip(tables, before, strict=True))
    sizes = re.findall(r'"\w*[fF]ontSize": (\d+)', json.dumps(spec, allow_nan=False))
    assert min(map(int, sizes)) >= 11
    assert "toy" in subtitle(spec)
    assert SAMPLE in subtitle(spec)
    ablation = {"E4": "", "E11a": "nothing ablated"}.get(key, "resample ablation")
    assert ablation in subtitle(spec)


@pytest.mark.parametrize("key", TABLES)
def test_all_axes_are_titled_with_a_unit(key: str) -> None:
    spec, _ = drawn_of(key)
    titles = {
        str(part["encoding"][axis].get("title"))
        for part in layers_of(spec)
        for axis in ("x", "y")
        if "axis" in part["encoding"].get(axis, {})
    }
    unit = r"\((logits|%|ratio|rank|no unit)\)|Share of tokens|Slope, new / old|Layer|Rank of"
    assert titles
    assert all(re.search(unit, title) for title in titles), titles


@pytest.mark.parametrize("key", TABLES)
def test_a_single_row_can_be_drawn(key: str) -> None:
    table, *others = TABLES[key][0]()
    assert module_of(key).draw(table.head(1), *others).to_dict()["title"]["text"]
    assert "toy" in module_of(key).caption(table.head(1), *others)


@pytest.mark.parametrize("key", OF_NEURONS)
def test_neurons_that_were_not_measured_are_told_from_an_error(key: str) -> None:
    tables = [table.head(0) for table in TABLES[key][0]()]
    for call in (module_of(key).draw, module_of(key).caption):
        with pytest.raises(NotMeasured, match=f"^Not measured: {NO_NEURONS}"):
            call(*tables)
    assert drawn_of(key)[0]["title"]["text"] == module_of(key).TITLE


@pytest.mark.parametrize("key", TABLES)
def test_rows_without_a_value_are_counted_not_drawn(key: str) -> None:
    make, column = TABLES[key]
    table, *others = make()
    table = made.change_first(table, **{column: None})
    spec = module_of(key).draw(table, *others).to_dict()
    json.dumps(spec, allow_nan=False)
    assert "without a finite value, not drawn: 1" in subtitle(spec)


@pytest.mark.parametrize("key", TABLES)
def test_input_is_refused_in_one_line(key: str) -> None:
    make, column = TABLES[key]
    table, *others = make()
    name = CATALOGUE[key].tables[0]
    nothing = pl.lit(float("nan")).alias(column)
    wrong = {
        rf"the {name} table has no column {column}; write": (table.drop(column), *others),
        rf"the {name} table has no rows with .*finite .*{column}.*; run": (
            *(table.with_columns(nothing), *others),
        ),
        "takes one model, got toy and b; filter": (
            *(pl.concat([table, table.with_columns(model=pl.lit("b"))]), *others),
        ),
    }
    if key not in OF_NEURONS:
        wrong[rf"the {name} table has no rows .*; run"] = (table.head(0), *others)
    if others:
        (summaries,) = others
        wrong |= {
            "the summaries table has no column group; write": (table, summaries.drop("group")),
            r"the summaries table has no \w+ of experiment E\d+ for toy; write": (
                *(table, summaries.with_columns(model=pl.lit("other"))),
            ),
        }
    for message, tables in wrong.items():
        for call in (module_of(key).draw, module_of(key).caption):
            with pytest.raises(InputError, match=rf"^{key}: {message}[^\n]*$"):
                call(*tables)
