"""A panel per head: order, headings, and the words about all panels."""

from __future__ import annotations

import polars as pl

import chosen_tables as made
from selfrepair.figures import panels
from selfrepair.figures.marks import headings_of


def test_each_head_has_a_heading_with_its_notes_and_keeps_its_rows_order() -> None:
    table = made.tokens(3).reverse()
    rows = panels.panel_per_head(table, lambda panel: [f"{panel.height} tokens"])
    names = ["Layer 2, head 1", "Layer 3, head 0", "Layer 3, head 2"]
    assert headings_of(rows) == [f"{name}\n3 tokens" for name in names]
    for (layer, head), heading in zip(made.HEADS, headings_of(rows), strict=True):
        here = rows.filter(panel=heading).drop("panel")
        assert here.equals(table.filter(layer=layer, head=head))


def test_the_mlp_is_named_where_there_are_several() -> None:
    one, two = made.neuron_ranks(), made.neuron_ranks((2, 3))
    assert headings_of(panels.panel_per_head(one))[0] == "Layer 2, head 1"
    assert headings_of(panels.panel_per_head(two))[1] == "Layer 2, head 1; MLP of layer 3"
    assert panels.mlps(one) == "the MLP of layer 3"
    assert panels.mlps(two) == "the MLPs of layers 2 and 3"


def test_sentences_name_model_ablation_and_sample() -> None:
    rows: pl.DataFrame = made.neuron_ranks()
    assert panels.about_neurons(rows, "5 tokens") == (
        "toy, resample ablation, neurons of the MLP of layer 3; tokens from each head's top 2 %:"
        " 5 tokens"
    )
    assert panels.heads_and_tokens(rows, "5 tokens", ablation="zero") == (
        "heads L2H1, L3H0 and L3H2 of toy under zero ablation, on tokens from each head's top"
        " 2 % (those with its largest direct effect; 5 tokens)"
    )
