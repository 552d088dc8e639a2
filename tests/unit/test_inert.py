"""What strangers have named is shown as it is written, and does nothing."""

import pytest

from hostile_names import NAMES, elements, rendered, shown
from selfrepair.inert import inert, inert_line


@pytest.mark.parametrize("name", NAMES)
def test_markdown_shows_a_name_and_nothing_else(name: str):
    for text in (inert_line(name), f"| {inert_line(name)} | 1 |\n|---|---|\n", inert(name)):
        assert elements(rendered(text)) == []
    assert shown(rendered(inert_line(name))) == " ".join(name.split())


def test_the_names_would_do_something():
    """Or the test above could not fail."""
    doing = [name for name in NAMES if elements(rendered(name))]
    assert len(doing) >= 8


def test_intervals_and_plain_words_stay_as_they_are():
    text = "0.39 [0.36, 0.42] logits (73 % [65, 82] of the direct effect), Q4_1 & more > 2"
    assert inert(text) == inert_line(text) == text


def test_mathematics_and_cells_are_not_opened():
    assert "$" not in inert("$x$")
    assert "\\(" not in inert("\\\\(x\\\\)")
    assert inert("a | b") == "a \\| b"
