"""The short version, part of every test run: the page opens without a network, shows a head, and runs no text."""

from page_study import CHOSEN, HEADS, HOSTILE, LAYERS

ADDRESS = f"#model=full&head=L{CHOSEN[0]}H{CHOSEN[1]}"


def test_a_head_is_found_and_shown(opened):
    found = opened()
    assert found.page.locator('.grid[data-model="full"] .cell').count() == LAYERS * HEADS
    found.cell("full", *CHOSEN).click()
    found.page.wait_for_selector(".panel")
    assert found.address() == ADDRESS
    found.drawn()
    assert found.page.locator(".panel .chart svg").count() >= 5
    assert found.errors == []
    assert found.asked == []


def test_what_a_document_holds_stays_text(opened):
    """A document, its title and its licence hold a script; all of its tokens are shown."""
    found = opened(ADDRESS)
    card = found.page.locator(".card.wide")
    while card.locator("button.more").is_visible():
        card.locator("button.more").click()
    origins = card.locator(".origin").all_inner_texts()
    assert any(HOSTILE in origin for origin in origins)
    assert "</script>" in card.locator("mark").all_inner_texts()[0] + "".join(
        card.locator(".context").all_inner_texts()
    )
    assert found.page.evaluate("window.ran === undefined")
    assert found.page.locator("img[src=x]").count() == 0
    assert found.page.locator("script").count() == 3
    assert found.errors == []
