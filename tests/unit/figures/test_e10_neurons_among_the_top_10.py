"""E10: neurons by how often they occur, the most frequent named."""

from __future__ import annotations

import polars as pl
import pytest

import chosen_tables as made
from figure_specs import drawn, headings, subtitle
from selfrepair.figures import e10_neurons_among_the_top_10 as e10
from selfrepair.figures import marks


def test_neurons_are_sorted_by_how_often_they_occur() -> None:
    spec = e10.draw(made.neuron_counts()).to_dict()
    same, line = drawn(spec, "line", "share")
    assert [len(headings(spec)), len(line["rows"])] == [3, 3 + 7 + 1]
    rows = pl.DataFrame(line["rows"]).filter(panel=headings(spec)[1])
    assert rows["rank"].to_list() == list(range(1, 8))
    assert rows["share"].to_list() == [1.0, 0.2, 0.075, 0.075, 0.075, 0.075, 0.025]
    assert rows["neuron"].to_list()[:3] == [101, 100, 102]
    assert line["encoding"]["x"]["scale"]["type"] == "log"
    assert line["encoding"]["y"]["title"] == "Instances with it in the top 10 (%)"
    # Points too, which tell each neuron.
    assert line["mark"]["point"]["size"] > 0
    assert {tip["field"] for tip in line["encoding"]["tooltip"]} >= {"neuron", "prompts"}
    assert [(row["rank"], row["share"]) for row in same["rows"]] == [(1, 1), (10, 1), (10, 0)]


def test_the_most_frequent_is_named_and_the_different_are_counted() -> None:
    spec = e10.draw(made.neuron_counts()).to_dict()
    assert " ".join(headings(spec)[1].split("\n")) == (
        "Layer 3, head 0 7 different neurons; most frequent: neuron 101,"
        " in 40 of 40 instances, 7 of 7 prompts"
    )
    # The heads share neurons 100 to 102.
    assert "at least one instance: 7;" in subtitle(spec)
    assert "; 7 different neurons occur" in e10.caption(made.neuron_counts())


def test_of_too_many_neurons_the_ends_of_each_share_are_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(marks, "MOST_POINTS", 5)
    spec = e10.draw(made.neuron_counts()).to_dict()
    _, line = drawn(spec, "line", "share")
    rows = pl.DataFrame(line["rows"]).filter(panel=headings(spec)[1])
    assert rows["rank"].to_list() == [1, 2, 3, 6, 7]
