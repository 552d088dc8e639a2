"""Titles, licences and texts that would do something where they are not shown as text."""

from html.parser import HTMLParser

from markdown_it import MarkdownIt

NAMES = [
    "</script><script>window.ran = true</script>",
    "<img src=x onerror='window.ran = true'>",
    "<a href='javascript:window.ran = true'>a</a>",
    "[a](javascript:window.ran=true)",
    "![a](javascript:window.ran=true)",
    "[a][b] \n\n[b]: javascript:window.ran=true",
    "<javascript:window.ran=true>",
    "`</code><script>window.ran = true</script>`",
    "\\[a](javascript:window.ran=true)",
    "$\\href{javascript:window.ran=true}{a}$",
    "a | b\n\n# c\u2028<script>window.ran = true</script>",
    "\"'};window.ran = true;//",
    "{{ 1 }} ${window.ran = true} %s",
    "`a <javascript:window.ran=true>`_",
    "~~~",
    "~~a~~ &lt;b&gt; a & b",
    "# a",
    "> a",
    "1. a",
    "- a",
]
# In a page where something may run.
RUNS = {"script", "img", "a", "iframe", "svg", "object"}


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def elements(page: str) -> list[str]:
    """The elements of an HTML page that may run something or fetch something."""
    return [tag for tag in _Page(page).tags if tag in RUNS]


def shown(page: str) -> str:
    """The text of an HTML page, white space as one space."""
    return " ".join(_Page(page).text.split())


def rendered(markdown: str) -> str:
    """Markdown as HTML by a reader that lets everything through."""
    reader = MarkdownIt("commonmark", {"html": True}).enable("table")
    reader.validateLink = lambda _: True  # type: ignore[method-assign]
    return str(reader.render(markdown))
