"""Claims are judged by their rule, from the right rows, and shown as they are."""

import json
import math

import polars as pl
import pytest

from selfrepair.claims.judge import (
    CLAIMS,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
    Depth,
    Summary,
    judge,
    metrics,
)
from selfrepair.claims.page import markdown, page
from selfrepair.errors import InputError
from selfrepair.tables.summaries import summary_table

BY_ID = {claim.id: claim for claim in CLAIMS}


def depth_table(models=("a", "b")):
    """Every column that a claim reads, each value its own; rows that no claim may read are far off."""
    wanted = [c.value for c in CLAIMS] + [c.clipped for c in CLAIMS if c.clipped]
    columns = sorted({what.column for what in wanted if isinstance(what, Depth)})
    rows = []
    for m, model in enumerate(models):
        for ablation in ("mean", "resample"):
            for selection in ("all", "top"):
                for group in ("last quarter", "second half", "last layer but one"):
                    right = (ablation, selection) == ("resample", "top")
                    keys = {"model": model, "ablation": ablation, "selection": selection}
                    row = keys | {"depth": group, "n_tokens": 40, "n_prompts": 9}
                    for i, column in enumerate(columns):
                        value = 0.1 * i + 0.01 * m + (0.5 if "one" in group else 0.0)
                        value = value if right else 99.0
                        row |= {column: value, f"{column}_low": value - 0.05}
                        row |= {f"{column}_high": value + 0.05}
                    rows.append(row)
    return pl.DataFrame(rows), columns


def summaries(models=("a", "b")):
    rows = []
    for model in models:
        for i, claim in enumerate(c for c in CLAIMS if isinstance(c.value, Summary)):
            what = claim.value
            for group in ("MLP 1", "MLP 3") if what.group is None else (what.group, "another"):
                last = group in ("MLP 3", what.group)
                for layer in (4, None):
                    value = float(i) if last and layer is None else 77.0
                    rows.append(
                        {"model": model, "experiment": what.experiment, "quantity": what.quantity}
                        | {"layer": layer, "head": None, "group": group, "value": value}
                        | {"low": value - 0.2, "high": value + 0.2, "n_prompts": 5, "n_tokens": 70}
                    )
    return summary_table(rows)


@pytest.fixture(scope="module")
def claims():
    return judge(depth_table()[0], summaries())


def test_one_row_per_claim_and_model_with_the_value_of_its_row(claims):
    assert claims.height == 2 * len(CLAIMS)
    _, columns = depth_table()
    values = {row["id"]: row for row in claims.filter(model="b").iter_rows(named=True)}
    expected = 0.1 * columns.index("restored_share") + 0.01
    assert values["repair_is_imperfect"]["value"] == pytest.approx(expected)
    assert values["repair_is_imperfect"]["low"] == pytest.approx(expected - 0.05)
    share = 0.1 * columns.index("from_norm_share") + 0.01
    assert values["norm_restores_second_half"]["value"] == pytest.approx(share)
    assert values["norm_restores_last_but_one"]["value"] == pytest.approx(share + 0.5)
    clipped = 0.1 * columns.index("from_norm_share_clipped") + 0.01
    assert values["norm_restores_second_half"]["clipped"] == pytest.approx(clipped)
    assert values["later_layers_repair"]["clipped"] is None
    from_summaries = [c.id for c in CLAIMS if isinstance(c.value, Summary)]
    for i, name in enumerate(from_summaries):
        assert values[name]["value"] == i
        assert values[name]["n_tokens"] == 70


@pytest.mark.parametrize(
    ("claim", "low", "high", "verdict"),
    [
        ("later_layers_repair", 0.1, 0.2, SUPPORTED),
        ("later_layers_repair", -0.1, 0.2, UNDECIDED),
        ("later_layers_repair", -0.2, 0.0, NOT_SUPPORTED),
        ("repair_is_imperfect", 0.5, 0.99, SUPPORTED),
        ("repair_is_imperfect", 0.9, 1.1, UNDECIDED),
        ("repair_is_imperfect", 1.0, 1.2, NOT_SUPPORTED),
        ("norm_restores_second_half", 0.2, 0.5, SUPPORTED),
        ("norm_restores_second_half", 0.1, 0.2, UNDECIDED),
        ("norm_restores_second_half", 0.1, 0.7, UNDECIDED),
        ("norm_restores_second_half", 0.05, 0.1, NOT_SUPPORTED),
        ("norm_restores_second_half", 0.7, 0.8, NOT_SUPPORTED),
        ("later_layers_repair", math.nan, math.nan, UNDECIDED),
    ],
)
def test_a_verdict_asks_for_the_whole_interval(claim, low, high, verdict):
    assert BY_ID[claim].verdict(low, high) == verdict


def test_the_rule_is_written_in_the_unit_of_the_value():
    assert BY_ID["later_layers_repair"].rule() == "above 0 logits (no repair is 0)"
    assert BY_ID["repair_is_imperfect"].rule() == "below 100 % (full repair is 100 %)"
    rule = BY_ID["norm_restores_second_half"].rule()
    assert rule == "between 15 % and 60 % (within a factor of two of 30 %)"


def test_every_claim_has_a_limit_and_names_its_figure():
    from selfrepair.figures.gallery import FIGURES

    assert len(BY_ID) == len(CLAIMS)
    for claim in CLAIMS:
        assert claim.above is not None or claim.below is not None
        assert claim.figure in FIGURES


def test_what_was_not_measured_is_undecided_and_said_so():
    claims = judge(depth_table(("a",))[0], summaries(("a",)).filter(pl.col("experiment") != "E8"))
    row = claims.filter(id="few_neurons_repair").row(0, named=True)
    assert row["value"] is None
    assert row["verdict"] == UNDECIDED
    assert "value" not in metrics(claims)["a"]["few_neurons_repair"]
    assert "| not measured |" in markdown(claims, study="s", paths=paths(claims))


def test_metrics_are_scalars_without_gaps(claims):
    found = json.loads(json.dumps(metrics(claims), allow_nan=False))
    assert set(found) == {"a", "b"}
    for entries in found.values():
        for entry in entries.values():
            assert all(isinstance(value, (int, float, str)) for value in entry.values())


def paths(claims):
    return {
        model: {figure: f"../../figures/s/{figure}" for figure in claims["figure"]}
        for model in claims["model"]
    }


def test_pages_show_value_interval_verdict_and_figure(claims):
    text = markdown(claims, study="s", paths=paths(claims))
    row = claims.filter(model="a", id="repair_is_imperfect").row(0, named=True)
    value = f"{100 * row['value']:.0f} % [{100 * row['low']:.0f}, {100 * row['high']:.0f}]"
    (line,) = [
        line for line in text.split("## b:")[0].splitlines() if f"| {row['claim']} |" in line
    ]
    assert f"| {value} |" in line
    assert f"**{row['verdict']}**" in line
    assert "[E2](../../figures/s/E2.png)" in line
    assert text.count("\n| ") == 2 * (len(CLAIMS) + 1)
    rows = claims.filter(model="a")["verdict"].value_counts()
    for verdict, count in rows.iter_rows():
        assert f"{count} {verdict}" in text.split("## a:")[1].splitlines()[0]


def test_a_page_escapes_names_and_shows_each_figure_once(claims):
    odd = claims.with_columns(model=pl.col("model").replace("a", "<a & b>"))
    text = page(odd, study="s", paths=paths(odd))
    assert "<a & b>" not in text
    assert "&lt;a &amp; b&gt;" in text
    assert text.count("<img ") == 2 * claims["figure"].n_unique()


def test_no_models_are_refused():
    with pytest.raises(InputError, match="claims: the table by depth has no model"):
        judge(depth_table()[0].clear(), summaries())
