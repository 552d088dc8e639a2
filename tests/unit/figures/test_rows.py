"""The rows of a figure: which are kept, in what order, and what a table lacks."""

from __future__ import annotations

import math

import polars as pl
import pytest

from figure_tables import change, heads_table, two_models
from selfrepair.errors import InputError
from selfrepair.figures.rows import estimate, head_rows, layer_means, stacked, table_rows
from selfrepair.vocabulary import SUMMARY_COLUMNS


def numbers() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "model": ["b", "b", "b", "b"],
            "kind": ["x", "x", "y", "x"],
            "value": [1.0, math.nan, 3.0, None],
            "value_low": [math.nan, 1.0, 2.0, 3.0],
        }
    )


def test_rows_without_a_finite_value_are_counted_and_a_missing_bound_is_null() -> None:
    columns = ("model", "value", "value_low")
    rows, missing = table_rows("E0", numbers(), "toy", columns=columns, finite=["value"])
    assert rows["value"].to_list() == [1.0, 3.0]
    assert rows["value_low"].to_list() == [None, 2.0]
    assert missing == 2


def test_rows_that_are_not_the_figures_do_not_count_as_missing() -> None:
    rows, missing = table_rows(
        "E0", numbers(), "toy", columns=["model", "value"], finite=["value"], only={"kind": ["y"]}
    )
    assert (rows["value"].to_list(), missing) == ([3.0], 0)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (numbers().drop("value"), "^E0: the toy table has no column value; write"),
        (numbers().drop("kind"), "^E0: the toy table has no column kind; write"),
        (numbers().filter(kind="z"), "no rows with kind x/y and finite value; run "),
        (numbers().with_columns(value=math.nan), "no rows with kind x/y and finite value; run "),
        (
            pl.concat([numbers(), numbers().with_columns(model=pl.lit("a"))]),
            "^E0: takes one model, got b and a; filter",
        ),
    ],
)
def test_a_table_that_cannot_be_drawn_is_refused_in_one_line(
    table: pl.DataFrame, words: str
) -> None:
    with pytest.raises(InputError, match=words) as refusal:
        table_rows(
            "E0",
            table,
            "toy",
            columns=["model", "value"],
            finite=["value"],
            only={"kind": ["x", "y"]},
        )
    assert "\n" not in str(refusal.value)


def test_heads_keep_the_order_of_models_and_their_relative_depth() -> None:
    both = pl.concat([heads_table("z"), heads_table("a", layers=3, heads=2)])
    rows, _ = head_rows(
        "E0", both.sample(fraction=1, shuffle=True, seed=0).sort("model"), ["self_repair"]
    )
    assert rows["model"].unique(maintain_order=True).to_list() == ["a", "z"]
    rows, _ = head_rows("E0", both, ["self_repair"])
    assert rows["model"].unique(maintain_order=True).to_list() == ["z", "a"]
    assert rows.select("layer", "head").rows() == [(n // 3, n % 3) for n in range(12)] + [
        (n // 2, n % 2) for n in range(6)
    ]
    last = pl.col("model").replace_strict({"z": 3, "a": 2}, return_dtype=pl.Int64)
    assert rows.filter(pl.col("depth") != pl.col("layer") / last).is_empty()


def test_depth_counts_layers_whose_values_are_missing() -> None:
    table = heads_table().with_columns(
        self_repair=pl.when(layer=3).then(math.nan).otherwise("self_repair")
    )
    rows, missing = head_rows("E0", table, ["self_repair"])
    assert rows["depth"].max() == pytest.approx(2 / 3)
    assert missing == 3


def test_a_single_layer_has_depth_zero() -> None:
    rows, _ = head_rows("E0", heads_table(layers=1, heads=2), ["self_repair"])
    assert rows["depth"].to_list() == [0.0, 0.0]


def test_intervals_are_asked_for_only_where_there_are_some() -> None:
    table = heads_table().drop("self_repair_low")
    with pytest.raises(InputError, match="no column self_repair_low;"):
        head_rows("E0", table, ["self_repair"])
    rows, _ = head_rows("E0", table, ["self_repair", "direct_effect"], bounds=["direct_effect"])
    assert rows.columns[-4:] == [
        *("self_repair", "direct_effect", "direct_effect_low", "direct_effect_high")
    ]


def test_layer_means_weigh_heads_equally() -> None:
    rows, _ = head_rows("E0", two_models(), ["self_repair"])
    means = layer_means(rows, "self_repair", "model")
    assert means.height == 4 + 3
    for row in means.to_dicts():
        same = rows.filter(model=row["model"], layer=row["layer"])["self_repair"].to_list()
        assert row["self_repair"] == pytest.approx(sum(same) / len(same), abs=1e-12)


def test_stacked_has_a_row_per_quantity() -> None:
    table = heads_table(layers=1, heads=2).head(2)
    rows = stacked(table, ["from_mlps", "from_norm"], "head")
    assert rows["quantity"].to_list() == ["from_mlps"] * 2 + ["from_norm"] * 2
    assert rows["head"].to_list() == [0, 1, 0, 1]
    for end in ("", "_low", "_high"):
        want = [*table[f"from_mlps{end}"], *table[f"from_norm{end}"]]
        assert rows[f"value{end}"].to_list() == want


def test_an_estimate_without_a_value_is_none() -> None:
    row = dict.fromkeys(SUMMARY_COLUMNS, None) | {"group": "a", "value": 0.5}
    summary = pl.DataFrame([row, row | {"group": "b", "value": None}])
    assert estimate(summary, group="a")["value"] == 0.5  # type: ignore[index]
    assert estimate(summary, group="b") is estimate(summary, group="c") is None


def test_changed_tables_are_changed() -> None:
    """The helper of other tests."""
    assert change(heads_table(), 1, 1, from_norm=9.0).filter(from_norm=9.0).height == 6
