"""The page's data is what the tables say, for models of which all, some or nothing but means was measured."""

import json
import math

import polars as pl
import pytest

from page_study import (
    CHOSEN,
    HEADS,
    LAYERS,
    MISSING,
    bare_model,
    data_of,
    full_model,
    renamed,
    study_models_of,
)
from selfrepair.vocabulary import bounded


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return study_models_of(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def data(models):
    return data_of(models)


def rows_of(columns):
    """The rows of a table as the page reads them."""
    lists = {
        name: [column["levels"][code] if code >= 0 else None for code in column["codes"]]
        if isinstance(column, dict)
        else column
        for name, column in columns.items()
    }
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def test_every_head_has_its_values_and_intervals(models, data):
    table, rows = models[0].tables["heads"], rows_of(data["models"][0]["heads"])
    assert len(rows) == table.height == 2 * 2 * LAYERS * HEADS
    for row in rows:
        keys = {name: row[name] for name in ("ablation", "selection", "layer", "head")}
        (own,) = table.filter(**keys).to_dicts()
        for name in (*bounded("self_repair"), *bounded("from_norm_share"), "n_tokens"):
            if own[name] is None or math.isnan(own[name]):
                assert row[name] is None
                assert (row["layer"], row["head"]) == MISSING
            else:
                assert row[name] == pytest.approx(own[name], rel=5e-4, abs=5e-5)


def test_what_is_missing_is_null_and_never_zero(data):
    rows = [r for r in rows_of(data["models"][0]["heads"]) if (r["layer"], r["head"]) == MISSING]
    assert len(rows) == 4
    assert all(row["self_repair"] is None and row["direct_effect"] is not None for row in rows)
    json.dumps(data, allow_nan=False)


def test_a_term_that_the_model_does_not_have_is_left_out(data):
    assert not [name for name in data["models"][0]["heads"] if "post_norms" in name]


@pytest.mark.parametrize("name", ["scale_ratios", "neuron_counts", "top_neurons", "repair_map"])
def test_tables_of_experiments_are_there_row_by_row(models, data, name):
    table, rows = models[0].tables[name], rows_of(data["models"][0][name])
    assert len(rows) == table.height > 0
    for own, row in list(zip(table.to_dicts(), rows, strict=True))[::17]:
        for column, value in row.items():
            if isinstance(own[column], float):
                assert value == pytest.approx(own[column], rel=5e-4, abs=5e-4)
            else:
                assert value == own[column]


def test_single_tokens_and_their_prompts_are_there(data):
    first = data["models"][0]
    tokens = rows_of(first["tokens"])
    assert {row["ablation"] for row in tokens} == {"resample", "zero"}
    assert {row["prompt"] for row in tokens} == set(first["prompts"]["prompt"])
    chosen = [r for r in tokens if (r["layer"], r["head"], r["ablation"]) == (*CHOSEN, "resample")]
    assert len(chosen) > 40


def test_a_model_with_means_alone_has_empty_tables(data):
    bare = data["models"][1]
    assert (bare["layers"], bare["heads_per_layer"], bare["control_of"]) == (6, 2, "full")
    for name in ("tokens", "scale_ratios", "neuron_counts", "top_neurons", "repair_map"):
        assert rows_of(bare[name]) == []
    assert bare["prompts"]["prompt"] == []
    assert len(rows_of(bare["heads"])) == 2 * 6 * 2


def test_claims_are_there_as_judged(data):
    claims = rows_of(data["claims"])
    assert {row["model"] for row in claims} == {"Full <model>", "Bare 1"}
    assert {row["verdict"] for row in claims} == {"supported", "undecided", "not supported"}
    assert data["figures"]["full"]["E1"] == data["figures"]["bare1"]["E1"]
    assert data["figures"]["full"]["E2"] == "full/E2"


def test_facts_and_notes_say_what_was_run(data):
    full = data["models"][0]
    assert full["notes"] == ["Weights: made up.", "A note.", "A warning."]
    facts = dict(full["about"])
    assert facts["prompts ranked"] == "7 of 41 tokens"
    assert facts["prompts ablated"] == "resample 7, zero 5"
    assert facts["versions"] == "torch 2.13.0, transformer-lens 4.3.0"
    assert facts["seed"] == "3"
    assert facts["largest errors (logits)"] == "map 1.2e-05"
    assert "weights file" not in facts
    assert sum(row["documents"] for row in data["text"]) == 7


@pytest.mark.parametrize("count", [1, 4, 8])
def test_any_number_of_models(tmp_path, count):
    models = [full_model(tmp_path), *(bare_model(f"b{n}", f"B {n}") for n in range(1, count))]
    assert [m["key"] for m in data_of(models)["models"]] == [m.key for m in models]


def test_a_model_keeps_its_results_under_another_name(models):
    again = renamed(models[0], "again", "Again")
    found = data_of([again])["models"][0]
    assert (found["key"], found["title"]) == ("again", "Again")
    assert pl.Series(found["heads"]["layer"]).max() == LAYERS - 1
