"""The page as a file: packed, self-contained, the same for the same data, and closed to what text holds."""

import base64
import gzip
import json
import re
from html.parser import HTMLParser

import pytest

from page_study import BUNDLE, HOSTILE, data_of, full_model
from selfrepair.errors import InputError
from selfrepair.page.html import packed, page_html


class Elements(HTMLParser):
    """The elements of a page, and the text of its scripts by id."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.inside = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = dict(attrs).get("id", "code") if tag == "script" else None

    def handle_data(self, data):
        if self.inside:
            self.scripts[self.inside] = self.scripts.get(self.inside, "") + data

    def handle_endtag(self, tag):
        self.inside = None


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return data_of([full_model(tmp_path_factory.mktemp("study"))])


@pytest.fixture(scope="module")
def page(data):
    return page_html(BUNDLE.read_text(), data, "window.vega = {};")


def test_the_page_holds_its_data_and_vega_packed(page, data):
    scripts = Elements(page).scripts
    unpacked = {
        name: gzip.decompress(base64.b64decode(scripts[name])).decode() for name in ("data", "vega")
    }
    assert json.loads(unpacked["data"]) == data
    assert unpacked["vega"] == "window.vega = {};"
    assert HOSTILE in json.loads(unpacked["data"])["models"][0]["prompts"]["document"]


def test_no_text_can_end_a_script(page, data):
    assert HOSTILE not in page
    tags = [tag for tag, _ in Elements(page).tags]
    assert tags.count("script") == 3
    assert "img" not in tags
    hostile = page_html(BUNDLE.read_text(), data | {"study": HOSTILE}, "")
    assert [tag for tag, _ in Elements(hostile).tags] == tags


def test_the_page_loads_nothing_from_elsewhere(page):
    for tag, attributes in Elements(page).tags:
        assert "src" not in attributes, tag
        assert tag != "link"
        assert attributes.get("href", "#").startswith("#")
    assert not re.search(r"@import|url\(", re.search(r"<style>(.*?)</style>", page, re.S)[1])


def test_the_same_data_gives_the_same_page(page, data):
    assert page_html(BUNDLE.read_text(), data, "window.vega = {};") == page
    assert packed("a" * 1000) == packed("a" * 1000)


def test_another_file_is_no_bundle(data):
    with pytest.raises(InputError, match="make page-bundle"):
        page_html("<html></html>", data, "")
