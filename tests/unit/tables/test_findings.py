"""What a study found: its text and its scalars agree with the table by depth."""

import json
import subprocess
import sys

import polars as pl
import pytest

from hostile_names import NAMES, elements, rendered, shown
from selfrepair.tables.findings import findings, headline

ERRORS = {"conservation": 2e-5, "decomposition": 3e-5}


def test_findings_name_the_model_and_its_numbers(tables):
    _, depth = tables
    text = findings(depth, ERRORS)
    row = depth.filter(ablation="resample", selection="top").row(0, named=True)
    ends = f"{row['self_repair_low']:.2f}, {row['self_repair_high']:.2f}"
    assert f"| {row['self_repair']:.2f} [{ends}] |" in text
    assert f"| m | {row['depth']} | {row['n_tokens']} | 6 | " in text
    assert text.count("| m |") == 4 + 2  # quarters, then ablations
    assert f"| {100 * row['from_norm_share']:.0f} % [" in text
    assert "conservation 2.0e-05, decomposition 3.0e-05" in text


def test_post_norms_are_shown_of_models_that_have_them(tables):
    _, depth = tables
    row = depth.filter(ablation="resample", selection="top", depth="second half")
    (row,) = row.to_dicts()
    own = f"{100 * row['from_post_norms_share']:.0f} % [{100 * row['from_post_norms_share_low']:.0f}, "
    zero = depth.with_columns(pl.col("^from_post_norms.*$") * 0, model=pl.lit("plain"))
    assert "| from post-norms |" in findings(depth, ERRORS)
    both = findings(pl.concat([zero, depth]), ERRORS)
    plain, normed = (
        next(line for line in both.splitlines() if line.startswith(f"| {name} |"))
        for name in ("plain", "m")
    )
    assert own in normed
    assert "|  |" in plain
    assert "post-norms" not in findings(zero, ERRORS)
    two = pl.concat([zero, zero.with_columns(model=pl.lit("other"))])
    assert "post-norms" not in findings(two, ERRORS)
    found = headline(pl.concat([zero, depth]))
    assert not [name for name in found["plain"]["second half"] if "post_norms" in name]
    assert found["m"]["second half"]["from_post_norms_share"] == row["from_post_norms_share"]


def test_several_models_have_a_row_each_in_three_tables(tables):
    _, depth = tables
    twin = depth.with_columns(pl.col("self_repair_share") + 1, model=pl.lit("twin"))
    text = findings(pl.concat([depth, twin]), ERRORS, None, {"twin": "m"})
    assert text.count("| m |") == 3
    assert text.count("| twin (control of m) |") == 3
    main, quarters, ablations = (
        [line for line in block.splitlines() if line.startswith("| twin")]
        for block in text.split("| model |")[1:]
    )
    rows = twin.filter(selection="top")
    half = rows.filter(ablation="resample", depth="second half").to_dicts()[0]
    assert f"| {half['n_tokens']:,} | {half['n_prompts']} |" in main[0]
    assert f"| {half['self_repair']:.2f} [" in main[0]
    assert f"| {100 * half['restored_share']:.0f} % [" in main[0]
    last = rows.filter(ablation="resample", depth="last layer but one")["from_norm_share"].item()
    assert f"{100 * last:.0f} %" in main[0].split("|")[-2]
    for line, keys in ((quarters[0], "depth"), (ablations[0], "ablation")):
        for value, cell in zip(line.split("|")[2:-1], cells(rows, keys), strict=True):
            assert value.strip().startswith(f"{100 * cell:.0f} %")


def cells(rows, key):
    """Self-repair as a share by quarter under resample ablation, or by ablation in the last quarter."""
    if key == "depth":
        rows = rows.filter(pl.col("depth").str.contains("quarter"), ablation="resample")
    else:
        rows = rows.filter(depth="last quarter")
    return rows["self_repair_share"].to_list()


def test_notes_stand_below_the_tables(tables):
    _, depth = tables
    assert "\nNotes:\n\n- m: Odd.\n- m: Even.\n\n" in findings(
        depth, ERRORS, {"m": ["Odd.", "Even."]}
    )
    assert findings(depth, ERRORS, {"m": []}) == findings(depth, ERRORS)


def test_few_prompts_are_warned_of(tables):
    _, depth = tables
    warning = "fewer than 5 prompts are too narrow"
    assert warning not in findings(depth, ERRORS)  # six
    assert warning in findings(depth.with_columns(n_prompts=pl.lit(4)), ERRORS)


def test_values_without_an_interval_stand_alone(tables):
    _, depth = tables
    bounds = pl.col("^.*_(low|high)$")
    text = findings(depth.with_columns(bounds * float("nan")), ERRORS)
    assert "nan" not in text
    assert " [" not in text


def test_the_headline_is_of_top_tokens_and_the_papers_ablation(tables):
    _, depth = tables
    found = json.loads(json.dumps(headline(depth), allow_nan=False))
    row = depth.filter(ablation="resample", selection="top", depth="second half")
    assert found["m"]["second half"]["from_norm"] == row["from_norm"].item()
    assert found["m"]["second half"]["restored_share"] == row["restored_share"].item()
    other = headline(depth.filter(ablation="zero"))
    assert other["m"]["second half"]["self_repair"] == pytest.approx(row["self_repair"].item())
    missing = headline(depth.with_columns(from_heads=pl.lit(float("nan"))))
    assert "from_heads" not in missing["m"]["second half"]


def test_findings_load_no_torch():
    code = "import sys, selfrepair.tables.findings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_names_and_notes_are_shown_and_do_nothing(tables, name):
    _, depth = tables
    named = depth.with_columns(model=pl.lit(name))
    for table in (named, pl.concat([named, depth])):
        page = rendered(findings(table, ERRORS, {name: [name]}, {name: name}))
        assert elements(page) == []
        plain = " ".join(name.split())
        assert f"{plain}: {plain}" in shown(page)
        assert page.count("<table>") == (2 if table is named else 3)
