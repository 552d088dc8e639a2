"""Cleaning: characters and white space restored, markup gone, damage noticed, code left alone."""

import pytest

from selfrepair.text.cleaning import clean, clean_news, clean_wikitext, is_damaged


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ('a worse choice,"?Sen. Warren', 'a worse choice," Sen. Warren'),
        ('on DeVos"?highly contentious', "on DeVos' highly contentious"),
        ('determine "?at least "?the', "determine - at least - the"),
        ('he won"t and she"s', "he won't and she's"),
        ("save Â£47 billion", "save £47 billion"),
        ("â€œInforming usâ€\x9d", '"Informing us"'),
        ("one \t two\n\n\n\nthree", "one two\n\nthree"),
    ],
)
def test_cleaning_restores_what_was_meant(raw, cleaned):
    assert clean_news(raw) == cleaned


def test_wikitext_becomes_prose():
    raw = (
        "{{Infobox|a=1}}'''Anarchism''' is a [[philosophy|political philosophy]].<ref>A book</ref>\n"
        "{| class=x\n|-\n| cell\n|}\n[[File:x.png|thumb|A picture]]\n[[Category:Politics]]\nEnd."
    )
    cleaned = clean_wikitext(raw)
    assert cleaned.startswith("Anarchism is a political philosophy.")
    assert cleaned.endswith("End.")
    for leftover in ("{{", "[[", "A book", "cell", "picture", "Category"):
        assert leftover not in cleaned


def test_each_kind_of_source_is_cleaned_in_its_way():
    code = "def f():\n\n\n    return  1\n"
    assert clean("python_code", code) == clean("python_docs", code) == code.strip()
    assert clean("file", code) == "def f():\n\nreturn 1"
    assert clean("csv", 'he won"t') == "he won't"
    assert clean("file", 'he won"t') == 'he won"t'
    assert clean("wikitext", "[[a|b]]") == "b"


def test_a_text_that_lost_characters_is_noticed():
    assert is_damaged("M\ufffdller")
    assert is_damaged("Schr?der")
    assert not is_damaged("Who? Schröder.")
    assert not is_damaged("what?ever " + "word " * 1000)  # one in 5,000 characters
