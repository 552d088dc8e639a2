"""Pages of figures draw themselves without a network, and run nothing that a name in them holds."""

from pathlib import Path

import altair as alt
import polars as pl
import pytest

from hostile_names import NAMES
from selfrepair.figures.saving import save_figure
from selfrepair.figures.vega import save_vega


@pytest.fixture(scope="module")
def figure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A figure whose title, caption, axis, legend, panels, marks and tooltips are all of these names."""
    folder = tmp_path_factory.mktemp("figures")
    save_vega(folder / "vega.js")
    count = len(NAMES)
    rows = pl.DataFrame(
        {"name": NAMES, "x": range(count), "panel": [NAMES[n % 2] for n in range(count)]}
    )
    chart = (
        alt.Chart(rows, title=alt.Title("".join(NAMES), subtitle=NAMES))
        .mark_circle(size=400, opacity=1)
        .encode(
            x=alt.X("x:Q", title=NAMES[0]),
            y=alt.Y("name:N", title=NAMES[1]),
            color=alt.Color("name:N", title=NAMES[2]),
            column=alt.Column("panel:N", title=NAMES[3]),
            tooltip=[alt.Tooltip("name:N", title=NAMES[1]), alt.Tooltip("x:Q", title=NAMES[0])],
        )
    )
    save_figure(chart, "\n".join(NAMES), folder / "E1", vega=folder / "vega.js")
    return folder / "E1.html"


@pytest.mark.browser
@pytest.mark.parametrize("ending", ["html", "svg"])
def test_names_in_a_figure_stay_text(browser, figure: Path, ending: str):
    """Each mark's tooltip is shown in turn."""
    context = browser.new_context(offline=True)
    page, errors, asked = context.new_page(), [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(figure.with_suffix(f".{ending}").as_uri())
    if ending == "html":
        page.wait_for_selector("svg.marks")
        marks, seen = page.locator("svg.marks g.mark-symbol.role-mark path"), set()
        assert marks.count() == len(NAMES)
        for mark in marks.all():
            mark.hover()
            tooltip = page.locator("#vg-tooltip-element.visible")
            text = " ".join(tooltip.inner_text().split())
            seen |= {name for name in NAMES if " ".join(name.split()) in text}
            assert tooltip.locator("img, a, script").count() == 0
        assert len(seen) == len(NAMES)
        assert page.locator("img").count() == 0
    # Links of the menu of a figure are its own.
    assert [
        a for a in page.locator("a").all() if "javascript" in str(a.get_attribute("href"))
    ] == []
    assert page.evaluate("window.ran === undefined")
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    context.close()
