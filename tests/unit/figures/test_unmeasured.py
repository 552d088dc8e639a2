"""A table that was left empty is not drawn; one that lacks a column is refused."""

from __future__ import annotations

import pytest

import chosen_tables as made
from figure_specs import subtitle
from selfrepair.errors import InputError
from selfrepair.figures.unmeasured import NOT_MEASURED, is_unmeasured, unmeasured


def test_only_an_empty_table_is_unmeasured() -> None:
    table = made.neuron_counts()
    assert is_unmeasured("E10", table.clear(), "neuron_counts", columns=["neuron"])
    assert not is_unmeasured("E10", table, "neuron_counts", columns=["neuron"])
    with pytest.raises(InputError, match=r"^E10: the neuron_counts table has no column odd; write"):
        is_unmeasured("E10", table.clear(), "neuron_counts", columns=["odd"])


def test_the_reason_stands_below_the_title() -> None:
    spec = unmeasured("How it repairs").to_dict()
    assert spec["title"]["text"] == "How it repairs"
    assert " ".join(subtitle(spec).split()) == NOT_MEASURED
