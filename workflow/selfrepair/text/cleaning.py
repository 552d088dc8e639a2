"""Cleaning documents: wrongly decoded characters, white space, markup; and which ones are beyond repair."""

from __future__ import annotations

import re
from collections.abc import Callable

import ftfy
import mwparserfromhell


def clean(kind: str, text: str) -> str:
    """A document as it is measured, cleaned in the way that its kind of source needs."""
    return _CLEANERS.get(kind, clean_text)(text)


def clean_text(text: str) -> str:
    """Repair wrongly decoded characters; one space between words, one blank line between paragraphs."""
    text = ftfy.fix_text(text, normalization="NFC")
    text = re.sub(r"[ \t\u00a0]+", " ", text)
    return re.sub(r"\s*\n\s*\n\s*", "\n\n", text).strip()


def clean_news(text: str) -> str:
    """Also restore the quotation marks, apostrophes and dashes that one CSV file lost.

    They were three bytes each in UTF-8. Whoever made the file turned a closing quotation mark, an
    apostrophe or a dash, together with the space after it, into the two characters `"?`. Which of them
    it was follows from the characters before and after.
    """
    text = re.sub(r'(?<=\w)"(?=(?:t|s|re|ve|ll|d|m)\b)', "'", text)
    text = re.sub(r'(?<=[,.!?])"+\?', '" ', text)
    text = re.sub(r'(?<=\s)"\?|"\?(?=\s)', "- ", text)
    text = re.sub(r'(?<=s)"\?', "' ", text)
    text = re.sub(r'(?<=\w)"\?(?=\w)', '" ', text)
    return clean_text(text)


def clean_wikitext(text: str) -> str:
    """Readable text of an article: no templates, references, tables, files or categories."""
    text = re.sub(r"\{\|.*?\|\}", "", text, flags=re.DOTALL)
    article = mwparserfromhell.parse(text)
    for reference in article.filter_tags(matches=lambda tag: tag.tag == "ref"):
        if article.contains(reference):  # not inside something removed already
            article.remove(reference)
    plain = article.strip_code(normalize=True, collapse=True)
    lines = [
        line
        for line in plain.splitlines()
        if not re.match(r"\s*(thumb|left|right|frame|upright|Category:|File:|Image:|\d+px)\b", line)
    ]
    return clean_text("\n".join(lines))


def is_damaged(text: str) -> bool:
    """Whether characters were lost before we got the text: a replacement character, or question marks
    inside words, more than one in 2,000 characters."""
    return "\ufffd" in text or len(re.findall(r"\w\?\w", text)) > len(text) / 2000


# Kinds of sources that need something else than clean_text. Code keeps its white space.
_CLEANERS: dict[str, Callable[[str], str]] = {
    "csv": clean_news,
    "wikitext": clean_wikitext,
    "python_code": str.strip,
    "python_docs": str.strip,
}
