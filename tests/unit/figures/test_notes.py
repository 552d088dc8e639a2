"""Notes on models stand below the subtitle and behind the caption."""

from __future__ import annotations

import altair as alt

from figure_specs import subtitle
from figure_tables import depth_table
from selfrepair.figures import e12_breakdown_across_models as e12
from selfrepair.figures.notes import WIDTH, noted

CAPPED = "The model caps its logits softly at 30; everything is measured before the cap, " * 2


def drawn() -> tuple[alt.FacetChart, str]:
    table = depth_table("a", "b")
    return e12.draw(table), e12.caption(table)


def test_each_note_of_several_models_says_which_one_it_is_about() -> None:
    chart, caption = drawn()
    with_notes, longer = noted(chart, caption, {"a": [CAPPED, "Odd."], "b": []})
    assert longer == f"{caption} a: {CAPPED} a: Odd."
    lines = with_notes.to_dict()["title"]["subtitle"]
    old = chart.to_dict()["title"]["subtitle"]
    assert lines[: len(old)] == old
    assert " ".join(lines[len(old) :]) == f"a: {CAPPED} a: Odd.".replace("  ", " ")
    assert max(map(len, lines[len(old) :])) <= WIDTH


def test_a_note_of_the_only_model_does_not_name_it() -> None:
    chart, caption = noted(*drawn(), {"a": ["Odd."]})
    assert subtitle(chart.to_dict()).endswith("\nOdd.")
    assert caption.endswith(" Odd.")


def test_nothing_changes_without_notes() -> None:
    chart, caption = drawn()
    same, text = noted(chart, caption, {"a": [], "b": []})
    assert (same.to_dict(), text) == (chart.to_dict(), caption)
