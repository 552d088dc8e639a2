"""A figure with its caption: what is not measured is said in words, and notes on models stand below and behind."""

from __future__ import annotations

from typing import Any

import altair as alt
import pytest

import chosen_tables as made
from figure_specs import layers_of, subtitle
from figure_tables import depth_table
from selfrepair.figures import e10_neurons_among_the_top_10 as e10
from selfrepair.figures import e12_breakdown_across_models as e12
from selfrepair.figures.drawing import WIDTH, drawn, noted

CAPPED = "The model caps its logits softly at 30; everything is measured before the cap, " * 2


@pytest.fixture(scope="module")
def plain() -> tuple[alt.FacetChart, str]:
    table = depth_table("a", "b")
    return e12.draw(table), e12.caption(table)


def test_what_was_not_measured_is_a_figure_in_words() -> None:
    empty = made.neuron_counts().clear()
    chart, caption = drawn(e10, [[empty]], notes=[["Odd."]], weights=["guessed"])
    spec = chart.to_dict()
    assert [row["words"] for part in layers_of(spec) for row in part["rows"]] == ["Not measured"]
    assert spec["title"]["text"] == e10.TITLE
    assert " ".join(subtitle(spec).split()) == f"{e10.NONE} Odd."
    assert max(map(len, spec["title"]["subtitle"])) <= WIDTH
    assert caption == f"{e10.NONE} Odd. Weights of this model: guessed."


def test_each_note_of_several_models_says_which_one_it_is_about(plain: Any) -> None:
    chart, caption = plain
    old = chart.to_dict()["title"]["subtitle"]
    with_notes, longer = noted(chart.copy(), caption, {"a": [CAPPED, "Odd."], "b": []})
    assert longer == f"{caption} a: {CAPPED} a: Odd."
    lines = with_notes.to_dict()["title"]["subtitle"]
    assert lines[: len(old)] == old
    assert " ".join(lines[len(old) :]) == f"a: {CAPPED} a: Odd.".replace("  ", " ")
    assert max(map(len, lines[len(old) :])) <= WIDTH


def test_a_note_of_the_only_model_does_not_name_it(plain: Any) -> None:
    chart, caption = noted(plain[0].copy(), plain[1], {"a": ["Odd."]})
    assert subtitle(chart.to_dict()).endswith("\nOdd.")
    assert caption.endswith(" Odd.")


def test_nothing_changes_without_notes(plain: Any) -> None:
    assert noted(*plain, {"a": [], "b": []}) == plain
