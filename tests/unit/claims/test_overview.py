"""The first part of the claims page: claims by models, over models, and controls."""

import polars as pl
import pytest

from selfrepair.claims.claims import CLAIMS, CLAIMS_OVER_MODELS
from selfrepair.claims.judge import judge, metrics
from selfrepair.claims.over_models import judge_over_models
from selfrepair.claims.overview import SYMBOLS, overview
from selfrepair.claims.page import markdown, page
from selfrepair.claims.study_models import StudyModel


def pages(depth, summaries, paths, *, controls=None, models=("a", "b"), form=markdown):
    depth, summaries = (t.filter(pl.col("model").is_in(models)) for t in (depth, summaries))
    claims = judge(depth, summaries, controls)
    told = [StudyModel(title, (controls or {}).get(title)) for title in models]
    over = judge_over_models(claims, depth, told)
    return form(claims, study="s", paths=paths, over_models=over), claims, over


def test_one_model_has_its_own_table_only(depth, summaries, paths):
    for form in (markdown, page):
        text, claims, _ = pages(depth, summaries, paths, models=("a",), form=form)
        assert text == form(claims, study="s", paths=paths)
        assert "by models" not in text
        assert "over models" not in text
    assert "\n\n\n" not in pages(depth, summaries, paths, models=("a",))[0]


def test_claims_stand_by_models_with_values_and_how_many_support_them(depth, summaries, paths):
    text, claims, _ = pages(depth, summaries, paths)
    first = text.split("## Claims over models")[0]
    head = next(line for line in first.splitlines() if line.startswith("| claim"))
    assert head == "| claim of the paper | a | b | supported on |"
    lines = [line for line in first.splitlines() if line.startswith("| ")][1:]
    assert len(lines) == len(CLAIMS)
    for line, claim in zip(lines, CLAIMS, strict=True):
        rows = claims.filter(id=claim.id).to_dicts()
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        assert cells[0] == claim.claim + " (logits)" * (claim.unit == "logits")
        for row, cell in zip(rows, cells[1:3], strict=True):
            assert cell.endswith(f"] {SYMBOLS[row['verdict']]}")
            shown = (
                f"{100 * row['value']:.0f} %" if claim.unit == "share" else f"{row['value']:.2f}"
            )
            assert cell.startswith(f"{shown} [")
        supported = sum(row["verdict"] == "supported" for row in rows)
        assert cells[3].startswith("all 2" if supported == 2 else f"{supported} of 2 (")
    assert "\n\n\n" not in text
    assert (
        text.index("## Claims by models")
        < text.index("## Claims over models")
        < text.index("## a:")
    )


def test_claims_over_models_are_shown_with_rule_and_remark(depth, summaries, paths):
    text, _, over = pages(depth, summaries, paths)
    part = text.split("## Claims over models")[1].split("## a:")[0]
    for claim, row in zip(CLAIMS_OVER_MODELS, over.to_dicts(), strict=False):
        (line,) = [each for each in part.splitlines() if each.startswith(f"| {claim.claim} (")]
        assert f"| {claim.rule()} | **{row['verdict']}** | {row['remark']} |" in line
        assert f"[{claim.figure}](../../figures/s/{claim.figure}.png)" in line


@pytest.mark.parametrize("form", [markdown, page])
def test_a_control_stands_beside_its_original_and_is_not_counted(depth, summaries, paths, form):
    text, claims, _ = pages(depth, summaries, paths, controls={"b": "a"}, form=form)
    assert "Do the claims move? b, a control of a" in text
    assert "by models" not in text  # one model is left
    same = sum(
        len(set(rows["verdict"])) == 1 for _, rows in claims.group_by("id", maintain_order=True)
    )
    assert f"{same} of {len(CLAIMS)} verdicts are the same" in text


def test_a_control_of_several_models_has_the_last_column(depth, summaries, paths):
    third = [t.filter(model="a").with_columns(model=pl.lit("c")) for t in (depth, summaries)]
    tables = [pl.concat([t, own]) for t, own in zip((depth, summaries), third, strict=True)]
    more = paths | {"c": paths["a"]}
    text, *_ = pages(*tables, more, controls={"a": "b"}, models=("a", "b", "c"))
    assert "| claim of the paper | b | c | a (control) | supported on |" in text
    assert "controls not counted" in text
    assert " of 2 (" in text
    assert " of 3 (" not in text


def test_a_verdict_that_changes_and_intervals_that_part_are_said(depth, summaries):
    moved = depth.with_columns(
        pl.when(pl.col("model") == "b").then(pl.col(name) - 5).otherwise(name).alias(name)
        for name in ("self_repair", "self_repair_low", "self_repair_high")
    )
    (control,) = overview(judge(moved, summaries, {"b": "a"}), None)["controls"]
    row = control["rows"][0]
    assert row["verdict"] == "supported → not supported"
    assert row["intervals"] == "apart"
    assert {each["intervals"] for each in control["rows"][1:]} == {"overlap"}
    assert control["summary"].startswith(
        "16 of 17 verdicts are the same; the intervals of 1 are apart"
    )


def test_the_html_page_has_cells_that_lead_to_the_models_rows(depth, summaries, paths):
    text, *_ = pages(depth, summaries, paths, form=page)
    assert text.count('<td class="value"><a href="#a-') == len(CLAIMS)
    assert 'href="#b-repair_is_noisy"' in text
    assert 'id="b-repair_is_noisy"' in text
    assert text.count('id="all-E15"') == text.count('id="all-E1"') == 1


def test_metrics_of_several_models_have_the_claims_over_them(depth, summaries, paths):
    _, claims, over = pages(depth, summaries, paths)
    found = metrics(claims, over)
    assert set(found) == {"a", "b", "all models"}
    assert found["all models"]["every_model_repairs"]["n_models"] == 2
    assert "value" not in found["all models"]["repair_grows_with_size"]
    assert "n_supported" in found["all models"]["repair_is_noisy"]
