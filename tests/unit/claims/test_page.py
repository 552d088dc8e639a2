"""The claims page shows each claim as it was judged, in Markdown and in HTML."""

import re

import polars as pl
import pytest

from hostile_names import NAMES, elements, rendered, shown
from selfrepair.catalogue import FIGURES
from selfrepair.claims.claims import CLAIMS
from selfrepair.claims.judge import judge
from selfrepair.claims.page import markdown, page


def test_pages_show_value_interval_verdict_and_figure(claims, paths):
    text = markdown(claims, study="s", paths=paths)
    row = claims.filter(model="a", id="repair_is_imperfect").row(0, named=True)
    value = f"{100 * row['value']:.0f} % [{100 * row['low']:.0f}, {100 * row['high']:.0f}]"
    (line,) = [
        line for line in text.split("## b:")[0].splitlines() if f"| {row['claim']} |" in line
    ]
    assert f"| {value} |" in line
    assert f"**{row['verdict']}**" in line
    assert "[E2](../../figures/s/a/E2.png)" in line
    assert text.count("\n| ") == 2 * (len(CLAIMS) + 1)
    rows = claims.filter(model="a")["verdict"].value_counts()
    for verdict, count in rows.iter_rows():
        assert f"{count} {verdict}" in text.split("## a:")[1].splitlines()[0]


def test_a_page_escapes_names_and_shows_each_figure_once(claims, paths):
    odd = claims.with_columns(model=pl.col("model").replace("a", "<a & b>"))
    odd_paths = {"<a & b>": paths["a"], "b": paths["b"]}
    text = page(odd, study="s", paths=odd_paths)
    assert "<a & b>" not in text
    assert "&lt;a &amp; b&gt;" in text
    own = {figure.key for figure in FIGURES if figure.scope == "model"}
    figures = set(claims["figure"])
    assert text.count("<img ") == 2 * len(figures & own) + len(figures - own)
    for target in re.findall(r'href="#([^"]+)"', text):
        assert text.count(f'id="{target}"') == 1, target


def test_names_stay_text_in_markdown(claims, paths):
    odd = "<script>x</script> | a\n\n# b <img src=x onerror=x>"
    named = claims.with_columns(model=pl.col("model").replace("a", odd))
    text = markdown(
        named, study="s", paths={odd: paths["a"], "b": paths["b"]}, notes={odd: [odd], "b": []}
    )
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "\n# b" not in text
    assert text.count("&lt;script>x&lt;/script> \\| a # b") == 2  # its heading and its note
    columns = {
        line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| ")
    }
    plain = markdown(claims, study="s", paths=paths)
    assert columns == {line.count("|") for line in plain.splitlines() if line.startswith("| ")}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_name_does_anything(claims, paths, name):
    named = claims.with_columns(model=pl.col("model").replace("a", name))
    given = {"study": "s", "paths": {name: paths["a"], "b": paths["b"]}}
    given["notes"] = {name: [name], "b": []}
    plain = page(claims, study="s", paths=paths)
    assert elements(page(named, **given)) == elements(plain)
    in_markdown = rendered(markdown(named, **given))
    assert elements(in_markdown) == elements(rendered(markdown(claims, study="s", paths=paths)))
    assert " ".join(name.split()) in shown(in_markdown)


def test_what_was_not_measured_is_said_so(depth, summaries, paths):
    claims = judge(depth.filter(model="a"), summaries.filter(pl.col("experiment") != "E8"))
    text = markdown(claims, study="s", paths=paths)
    (line,) = [line for line in text.splitlines() if "Few neurons carry" in line]
    assert "| not measured |" in line
    nothing = judge(
        depth.filter(model="a").with_columns(ablation=pl.lit("mean")), summaries.clear()
    )
    assert "Nothing was measured." in markdown(nothing, study="s", paths=paths)


def test_notes_stand_under_their_model(claims, paths):
    options = {"study": "s", "paths": paths}
    notes = {"a": ["Odd & <even>.", "More."], "b": []}
    text = markdown(claims, **options, notes=notes)
    first, second = text.split("## a:")[1].split("## b:")
    assert first.splitlines()[1:6] == [
        "",
        "- Odd & &lt;even>.",
        "- More.",
        "",
        first.splitlines()[5],
    ]
    assert first.splitlines()[5].startswith("| claim")
    assert "Odd" not in second
    shown = page(claims, **options, notes=notes)
    assert "<p>Odd &amp; &lt;even&gt;.</p>\n<p>More.</p>" in shown.split("<h2>b:")[0]
    for function in (markdown, page):
        assert function(claims, **options, notes={}) == function(claims, **options)
