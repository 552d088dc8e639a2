"""One head of a study's results."""

import shutil

import polars as pl
import pytest

from selfrepair.errors import InputError
from selfrepair.reading.study import load_results
from selfrepair.vocabulary import SECOND_HALF


@pytest.fixture(scope="module")
def head(model):
    return model.head(28, 7)


def test_its_rows_are_those_of_the_tables(model, head):
    want = model.table("heads").filter(pl.col("layer") == 28, pl.col("head") == 7)
    assert head.rows.equals(want)
    assert head.rows.height == 4  # two ablations, two selections
    assert head.tokens.height == 40
    assert head.parts.select("layer", "head").unique().rows() == [(28, 7)]
    assert head.parts["mean"].is_sorted(descending=True)
    assert head.backups["rank"].to_list() == [1, 2, 3]
    assert head.neurons["instances"].to_list() == [1]


def test_terms_add_up_to_self_repair(head):
    table = head.decomposition()
    assert table["quantity"].to_list() == [
        *("direct_effect", "ablated_direct_effect", "delta_logit", "self_repair"),
        *("from_heads", "from_mlps", "from_norm"),
    ]
    value = dict(table.select("quantity", "value").iter_rows())
    terms = sum(v for name, v in value.items() if name.startswith("from_"))
    assert terms == pytest.approx(value["self_repair"], abs=1e-6)
    share = dict(table.select("quantity", "share").iter_rows())
    assert share["direct_effect"] is None
    assert share["from_mlps"] == pytest.approx(value["from_mlps"] / value["direct_effect"])
    assert (table["low"] <= table["value"]).all()


def test_other_ablations_and_selections(head):
    zero = head.rows.filter(ablation="zero", selection="all")
    table = head.decomposition(ablation="zero", selection="all")
    assert table.filter(quantity="self_repair")["value"].equals(zero["self_repair"].rename("value"))
    with pytest.raises(
        InputError, match=r"^L28H7 of SmolLM2.*: mean/top was not measured; there are"
    ):
        head.decomposition(ablation="mean")


def test_an_explanation_says_what_the_tables_say(head):
    text = head.explain()
    row = head.rows.filter(ablation="resample", selection="top").row(0, named=True)
    for column, words in {
        "direct_effect": "the head adds {}",
        "delta_logit": "the logit changes by {}",
        "self_repair": "Later parts make up for {}",
        "from_mlps": "{} from MLPs",
    }.items():
        value, low, high = (row[f"{column}{end}"] for end in ("", "_low", "_high"))
        assert words.format(f"{value:.2f} [{low:.2f}, {high:.2f}] logits") in text
    assert f"{100 * row['self_repair_share']:.0f} % [" in text
    assert "under zero ablation" in text
    assert "the MLP of layer 29 (" in text
    assert "Neurons of the MLP of layer 3: " in text
    assert "on 90 % [85, 96] of the tokens it is anti-erasure" in text
    assert "Most often among the ten: 100 (1 of 40 tokens)." in text


def test_a_head_that_was_not_chosen(model):
    head = model.head(28, 6)
    assert head.neurons.is_empty()
    assert "not measured of this head; they were of L21H3, L27H7 and L28H7." in head.explain()


def test_a_head_that_the_sweeps_left_out(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "families")
    left_out = {"heads": pl.col("head") == 6, "depth": pl.col("depth") == SECOND_HALF}
    for name, which in left_out.items():
        path = copy / "smollm2" / f"{name}.parquet"
        counts = [pl.when(~which).then(n).alias(n) for n in ("n_tokens", "n_prompts")]
        numbers = pl.when(which).then(float("nan")).otherwise(pl.selectors.float()).name.keep()
        pl.read_parquet(path).with_columns(numbers, *counts).write_parquet(path)
    model = load_results(copy).model("smollm2")
    _, told, neurons = model.head(28, 6).explain().splitlines()
    assert told == "Not measured: the sweeps of this study left the head out (sweep.heads)."
    assert neurons.startswith("Single neurons: not measured of this head")
    assert "0 tokens" in repr(model.head(28, 6))
    explained = model.explain()
    assert "Of the second half not every head was ablated, so it has no mean." in explained
    assert "for heads of the second half the last MLP" not in explained
    assert "nan" not in explained


def test_how_it_looks(head):
    assert repr(head).startswith("Head L28H7 of SmolLM2-135M-Instruct, resample ablation, 8 tokens")
    assert "<th>from_mlps</th>" in head._repr_html_()
