"""Tables of single numbers with their interval, and the columns that label a table."""

import numpy as np
import polars as pl

from selfrepair.tables.bootstrap import interval
from selfrepair.tables.labels import labelled
from selfrepair.tables.summaries import SCHEMA, summary, summary_table
from selfrepair.vocabulary import SUMMARY_COLUMNS


def test_a_row_has_the_value_its_interval_and_what_it_rests_on():
    estimates = np.array([5.0, *np.linspace(0, 10, 101)])
    keys = {"model": "m", "experiment": "E9", "quantity": "q", "n_prompts": 3, "n_tokens": 40}
    table = summary_table([summary(estimates, layer=2, head=1, **keys), summary(estimates, **keys)])
    assert tuple(table.columns) == SUMMARY_COLUMNS
    first, second = table.rows(named=True)
    expected = interval(estimates, prompts=3)
    assert [first[name] for name in ("value", "low", "high")] == [float(x) for x in expected]
    assert {name: first[name] for name in keys} == keys
    assert (first["layer"], first["head"]) == (2, 1)
    assert table.schema == SCHEMA
    assert (second["layer"], second["head"], second["group"]) == (None, None, "")


def test_labels_stand_in_front_and_counts_behind():
    table = labelled(pl.DataFrame({"x": [0.5, 1.5]}), {"model": "m", "layer": 3}, {"n_tokens": 7})
    assert table.columns == ["model", "layer", "x", "n_tokens"]
    assert table.rows() == [("m", 3, 0.5, 7), ("m", 3, 1.5, 7)]
    assert table.schema["layer"] == table.schema["n_tokens"] == pl.Int32
