"""The pages of the documentation site, for MkDocs (mkdocs.yml): those that people write, where they lie in the
repository, and a reference made from the docstrings. All that a page shows comes with the site, and a link that
leads nowhere ends the build.
"""

from __future__ import annotations

import ast
import logging
import math
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

import selfrepair

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "workflow/selfrepair"
# Written pages, and the files that they show or link to.
WRITTEN = ("*.md", "docs/*.md", "*/README.md")
LINKED = (
    "docs/*.png",
    "docs/site/*.js",
    "notebooks/*.ipynb",
    "config/*.yaml",
    "CITATION.cff",
    "LICENSE",
)
# What GitHub shows as formulas.
MATH = re.compile(r"^```math\n(?P<block>.*?)^```|\$`(?P<inline>[^`]+)`\$", re.M | re.S)
CODE = re.compile(r"^ *```.*?^ *```", re.M | re.S)
ITEM = re.compile(r"(?:[-*]|\d+\.) ")
# A name of the library in prose: it becomes a link into the reference.
NAMED = re.compile(r"(?<!\[)`(selfrepair(?:\.[A-Za-z_]\w*)+)`")
# What a browser would load from elsewhere.
FOREIGN = re.compile(
    r"""<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>"""
)

log = logging.getLogger("mkdocs.hooks.pages")


def on_config(config: Any) -> Any:
    """The reference in the navigation."""
    config["nav"].append({"Reference": [f"reference/{name}.md" for name in reference()]})
    return config


def on_files(files: Files, config: Any) -> Files:
    """The written pages and what they show, at their places in the repository, and the reference.

    files: as MkDocs found them: the theme's, and those of docs/, which get another place.
    """
    found = [file for file in files if file.src_dir != config["docs_dir"]]
    for pattern in (*WRITTEN, *LINKED):
        for path in sorted(ROOT.glob(pattern)):
            uri = path.relative_to(ROOT).as_posix()
            found.append(File.generated(config, uri, abs_src_path=str(path)))
    pages = {f"reference/{name}.md": text for name, text in reference().items()}
    return Files(found + [File.generated(config, uri, content=text) for uri, text in pages.items()])


def reference() -> dict[str, str]:
    """Of each package of the library, and of the modules that lie in none, a page with the docstrings."""
    modules = sorted(path for path in LIBRARY.rglob("*.py") if path.name != "__init__.py")
    pages: dict[str, str] = {}
    for path in modules:
        *packages, name = path.relative_to(LIBRARY).with_suffix("").parts
        page = packages[0] if packages else "shared"
        pages.setdefault(page, _heading(page))
        pages[page] += f"\n::: {'.'.join(['selfrepair', *packages, name])}\n"
    doors = "\n".join(f"- `selfrepair.{name}`" for name in sorted(selfrepair.__all__))
    listed = "\n".join(f"- [{name}]({name}.md): {_about(name)}" for name in pages)
    front = f"# Reference\n\n{_about('')}\n\n{doors}\n\n## Packages\n\n{listed}\n"
    return {"index": front, **pages}


def _heading(page: str) -> str:
    """With an anchor for links to the package."""
    anchor = "" if page == "shared" else f"[](){{#selfrepair.{page}}}\n\n"
    return f"{anchor}# {page}\n\n{_about(page)}\n"


def _about(package: str) -> str:
    """The first line of a package's docstring."""
    if package == "shared":
        return "Modules that every package may use."
    docstring = ast.get_docstring(ast.parse((LIBRARY / package / "__init__.py").read_text())) or ""
    return docstring.partition("\n")[0]


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Formulas set aside, which Markdown would read as its own marks; names of the library as links."""
    page.formulas = []
    markdown = _as_python_markdown(markdown)

    def set_aside(formula: re.Match[str]) -> str:
        inline = formula["inline"]
        tex = inline or re.sub(r"\s*\n\s*", " ", formula["block"].strip())
        page.formulas.append(convert(tex, display="inline" if inline else "block"))
        return f"FORMULA{len(page.formulas) - 1}END"

    return _outside_code(MATH.sub(set_aside, markdown))


def _as_python_markdown(markdown: str) -> str:
    """Lists as MkDocs reads them, where GitHub asks for less: what belongs to an item is indented by four spaces, and
    a blank line stands between a paragraph and an item."""
    lines: list[str] = []
    shift, fenced, itemised = 0, False, False
    for line in markdown.splitlines():
        words = line.lstrip(" ")
        own = len(line) - len(words)
        if not fenced:
            shift = 4 * math.ceil(own / 3) - own if own > 1 else 0
            starts = not lines or not lines[-1]
            if ITEM.match(words) and not starts and not itemised:
                lines.append("")
                starts = True
            itemised = bool(ITEM.match(words)) if starts else itemised
        fenced ^= words.startswith("```")
        lines.append(" " * shift + line if line else line)
    return "\n".join(lines) + "\n"


def _outside_code(markdown: str) -> str:
    """The same with names of the library as links into the reference, but for blocks of code."""
    start, parts = 0, []
    for block in CODE.finditer(markdown):
        parts += [NAMED.sub(r"[`\1`][\1]", markdown[start : block.start()]), block[0]]
        start = block.end()
    return "".join([*parts, NAMED.sub(r"[`\1`][\1]", markdown[start:])])


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """The formulas back in their places, as MathML, which a browser draws by itself."""
    return re.sub(r"FORMULA(\d+)END", lambda place: page.formulas[int(place[1])], html)


def on_post_build(config: Any) -> None:
    """Warns, which ends a strict build, of what a reader would need the network for."""
    for path in Path(config["site_dir"]).rglob("*.html"):
        for tag in FOREIGN.findall(path.read_text(encoding="utf-8")):
            log.warning(
                "%s loads from elsewhere: %s", path.relative_to(config["site_dir"]), tag[:120]
            )
