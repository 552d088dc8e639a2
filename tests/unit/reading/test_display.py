"""How results look in a terminal and in a notebook."""

import polars as pl
import pytest

from hostile_names import NAMES, elements, rendered, shown
from selfrepair.reading.display import WIDTH, Text, as_html, as_text


def test_text_is_filled_and_stays_a_str():
    text = Text(f"{'one two-three ' * 30}\nnext_step *x*")
    lines = repr(text).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert lines[-1] == "next_step *x*"
    assert " ".join(lines[:-1]) == ("one two-three " * 30).strip()
    assert text.startswith("one two-three one")
    assert text._repr_markdown_().endswith("\n\nnext_step \\*x\\*")


def test_tables_are_whole_and_escaped():
    rows = pl.DataFrame({"name": [f"<{n}> {'x' * 90}" for n in range(30)]})
    shown = as_text("A title", rows, "a hint").splitlines()
    assert (shown[0], shown[-1]) == ("A title", "a hint")
    assert sum("x" * 90 in line for line in shown) == 30
    html = as_html("A & B", rows, "a hint")
    assert html.count("<tr>") == 31
    assert "<b>A &amp; B</b>" in html
    assert "&lt;3&gt;" in html


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_and_do_nothing(name):
    plain = " ".join(name.split())
    text = rendered(Text(f"{name}: 30 layers")._repr_markdown_())
    assert elements(text) == []
    assert plain in shown(text)
    table = as_html(name, pl.DataFrame({name: [name]}), name)
    assert elements(table) == []
    assert shown(table).count(plain) == 4
