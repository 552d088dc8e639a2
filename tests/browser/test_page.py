"""The page as it is used, in a browser: make test-browser."""

import csv
import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from page_study import CHOSEN, HEADS, LAYERS, MISSING, full_model, words

pytestmark = pytest.mark.browser

NAME = f"L{CHOSEN[0]}H{CHOSEN[1]}"
ADDRESS = f"#model=full&head={NAME}"
AXE = Path(__file__).parents[2] / "workflow/page/node_modules/axe-core/axe.min.js"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return full_model(tmp_path_factory.mktemp("model"))


def focused(found):
    """Layer and head of the cell that has the focus."""
    return found.page.evaluate(
        "[document.activeElement.dataset.layer, document.activeElement.dataset.head].map(Number)"
    )


def test_arrow_keys_walk_the_map_and_enter_chooses(opened):
    found = opened()
    keys = found.page.keyboard
    assert found.page.locator('.grid[data-model="full"] [tabindex="0"]').count() == 1
    found.page.locator('.grid[data-model="full"] [tabindex="0"]').focus()
    assert focused(found) == [LAYERS - 1, 0]
    for key, at in [
        ("ArrowLeft", [LAYERS - 2, 0]),
        ("ArrowDown", [LAYERS - 2, 1]),
        ("Home", [0, 1]),
        ("ArrowLeft", [0, 1]),
        ("ArrowUp", [0, 0]),
        ("Control+End", [LAYERS - 1, HEADS - 1]),
        ("Control+Home", [0, 0]),
        ("End", [LAYERS - 1, 0]),
    ]:
        keys.press(key)
        assert focused(found) == at, key
    keys.press("ArrowRight")
    keys.press("ArrowDown")
    keys.press("Enter")
    found.page.wait_for_selector(".panel")
    assert found.address() == f"#model=full&head=L{LAYERS - 1}H1"
    assert focused(found) == [LAYERS - 1, 1]
    assert found.cell("full", LAYERS - 1, 1).get_attribute("aria-selected") == "true"
    current = found.page.locator('button.head[aria-current="true"]')
    assert current.locator("b").inner_text() == f"L{LAYERS - 1}H1"
    keys.press("ArrowUp")
    keys.press("Space")
    found.page.wait_for_selector(f'.panel[data-head="L{LAYERS - 1}H0"]')
    # What the filter adds to the list anew is marked by the head that is chosen now.
    found.page.get_by_label("Find heads by name").fill(f"l{LAYERS - 1}")
    assert current.get_attribute("data-place") == f"full:L{LAYERS - 1}H0"


def test_the_page_can_be_walked_with_the_tab_key_and_shows_where(opened):
    found = opened()
    found.page.keyboard.press("Tab")
    assert found.page.evaluate("document.activeElement.textContent") == "Skip to the explorer"
    found.page.keyboard.press("Enter")
    assert found.page.evaluate("document.activeElement.id") == "explorer"
    seen = set()
    for _ in range(30):
        found.page.keyboard.press("Tab")
        seen.add(found.page.evaluate("document.activeElement.className.split(' ')[0]"))
        style = "getComputedStyle(document.activeElement).outlineStyle"
        assert found.page.evaluate(style) != "none"
        if focused(found)[0] is not None and "cell" in seen:
            break
    assert "cell" in seen


def test_a_deep_link_shows_two_heads_and_back_goes_back(opened):
    found = opened(f"{ADDRESS}&with=bare1:L5H0&quantity=from_mlps")
    panels = found.page.locator(".panel")
    assert panels.count() == 2
    assert [panels.nth(at).get_attribute("aria-label") for at in (0, 1)] == [
        f"Full <model> {NAME}",
        "Bare 1 L5H0",
    ]
    assert found.page.locator("select").first.input_value() == "from_mlps"
    panels.nth(1).get_by_role("button", name="Put away").click()
    found.page.wait_for_function("document.querySelectorAll('.panel').length === 1")
    assert "with" not in found.address()
    found.page.locator("button.head").first.click()
    found.page.wait_for_function(f"!location.hash.includes('{NAME}')")
    found.page.go_back()
    found.page.wait_for_selector(f'.panel[data-head="{NAME}"]')
    found.page.go_back()
    found.page.wait_for_function("document.querySelectorAll('.panel').length === 2")
    assert found.errors == []


def test_an_address_that_is_wrong_shows_the_start(opened):
    found = opened("#model=none&head=L99H1&quantity=x&ablation=y&with=full:L9&token=a&claim=q")
    assert found.page.locator(".panel").count() == 0
    assert found.page.locator(".hint").is_visible()
    assert found.errors == []


def test_the_map_follows_the_quantity_and_shows_what_is_missing(opened, model):
    found = opened()
    missing = found.cell("full", *MISSING)
    assert "missing" in missing.get_attribute("class")
    assert missing.get_attribute("aria-label") == f"L{MISSING[0]}H{MISSING[1]}: missing"
    colour = "(cell) => getComputedStyle(cell).backgroundColor"
    before = found.cell("full", *CHOSEN).evaluate(colour)
    found.page.get_by_label("Quantity").select_option("direct_effect")
    found.page.wait_for_function("location.hash.includes('direct_effect')")
    row = model.tables["heads"].filter(
        layer=CHOSEN[0], head=CHOSEN[1], ablation="resample", selection="top"
    )
    label = found.cell("full", *CHOSEN).get_attribute("aria-label")
    assert label.startswith(f"{NAME}: {row['direct_effect'][0]:.2f} [")
    assert found.cell("full", *CHOSEN).evaluate(colour) != before
    assert "missing" not in found.cell("full", *MISSING).get_attribute("class")
    found.page.get_by_role("button", name="zero", exact=True).click()
    found.page.wait_for_function("location.hash.includes('ablation=zero')")
    # The bare models were ablated in one way alone.
    assert "missing" in found.cell("bare1", 0, 0).get_attribute("class")


def test_heads_without_a_value_come_last(opened):
    found = opened("#shown=full")
    names = found.page.locator("button.head b").all_inner_texts()
    assert len(names) == LAYERS * HEADS
    assert names[-1] == f"L{MISSING[0]}H{MISSING[1]}"
    values = found.page.locator("button.head .number").all_inner_texts()
    assert values[-1] == "missing"
    numbers = [float(value.replace("−", "-")) for value in values[:-1]]
    assert numbers == sorted(numbers, reverse=True)
    found.page.get_by_label("Find heads by name").fill("l3")
    assert found.page.locator("button.head").count() == HEADS


def test_a_token_is_marked_in_chart_and_text(opened):
    found = opened(ADDRESS)
    first = found.page.locator("ol.tokens li").nth(3).get_by_role("button")
    prompt, position = first.inner_text().removeprefix("prompt ").split(", position ")
    first.click()
    found.page.wait_for_function(f"location.hash.endsWith('token={prompt}.{position}')")
    found.drawn()
    chosen = found.page.locator("ol.tokens li.chosen")
    assert chosen.count() == 1
    assert f"prompt {prompt}, position {position}" in chosen.inner_text()
    assert found.errors == []


def test_the_target_of_a_token_is_the_next_one(opened):
    found = opened(ADDRESS)
    for item in found.page.locator("ol.tokens li").all():
        position = int(item.get_by_role("button").inner_text().split("position ")[1])
        target = words()[(position + 1) % len(words())].replace("\n", "⏎")
        assert item.locator("mark").text_content() == target


def test_what_was_not_measured_is_said(opened):
    found = opened("#model=bare1&head=L5H1")
    text = found.page.locator(".panel").inner_text()
    assert "This study keeps no map of this model." in text
    assert "No single tokens were kept" in text
    assert found.page.locator(".panel .card.empty").count() == 5
    assert found.errors == []


def test_a_claim_opens_its_rule_and_figure(opened):
    found = opened()
    opener = found.page.locator('[data-claim="later_layers_repair"]')
    opener.click()
    found.page.wait_for_selector("tr.details")
    assert opener.get_attribute("aria-expanded") == "true"
    assert found.page.evaluate("document.activeElement.dataset.claim") == "later_layers_repair"
    assert "Holds if" in found.page.locator("tr.details").inner_text()
    image = found.page.locator("tr.details img")
    image.scroll_into_view_if_needed()
    found.page.wait_for_function("document.querySelector('tr.details img')?.naturalWidth === 8")
    link = found.page.locator("tr.details figcaption a")
    assert link.get_attribute("href") == "E1.html"
    opener.click()
    found.page.wait_for_function("!document.querySelector('tr.details')")


def test_rows_and_pictures_can_be_saved(opened, model):
    found = opened(ADDRESS)
    found.drawn()
    buttons = found.page.locator(".downloads button").all()
    assert len(buttons) >= 2 * 9
    for button in buttons:
        with found.page.expect_download() as download:
            button.click()
        text = Path(download.value.path()).read_text(encoding="utf-8")
        if download.value.suggested_filename.endswith(".svg"):
            assert ElementTree.fromstring(text).tag.endswith("svg")
        else:
            assert len(list(csv.reader(io.StringIO(text)))) > 1
        # Chromium drops without a word what a page saves beyond ten files in a second.
        found.page.wait_for_timeout(150)
    assert found.errors == []


def test_the_csv_of_the_map_is_the_table(opened, model):
    found = opened("#shown=full")
    with found.page.expect_download() as download:
        found.page.get_by_label("Download the rows of the map as CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    assert len(rows) == LAYERS * HEADS
    for row in rows:
        keys = {"layer": int(row["layer"]), "head": int(row["head"])}
        (own,) = (
            model.tables["heads"].filter(**keys, ablation="resample", selection="top").to_dicts()
        )
        if (keys["layer"], keys["head"]) == MISSING:
            assert row["value"] == ""
        else:
            assert float(row["value"]) == pytest.approx(own["self_repair"], rel=1e-3, abs=1e-4)
        assert int(row["n_tokens"]) == own["n_tokens"]


@pytest.mark.parametrize("models", [1, 4, 8])
@pytest.mark.parametrize("width", [390, 1280])
def test_any_number_of_models_fits_any_width(opened, models, width):
    size = {"width": width, "height": 800}
    found = opened(f"{ADDRESS}&claim=later_layers_repair", models=models, viewport=size)
    found.drawn()
    assert found.page.locator(".grid").count() == models
    assert found.page.evaluate("document.documentElement.scrollWidth") == width
    assert found.errors == []


def test_dark_and_still_where_the_reader_asks_for_it(opened):
    look = "getComputedStyle(document.body).backgroundColor"
    light, dark = (opened(color_scheme=scheme).page.evaluate(look) for scheme in ("light", "dark"))
    assert light != dark
    still = opened(reduced_motion="reduce")
    assert (
        still.page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", ["", f"{ADDRESS}&with=bare1:L5H0&claim=later_layers_repair"])
def test_axe_finds_nothing_serious(opened, scheme, address):
    if not AXE.is_file():
        pytest.skip("needs workflow/page/node_modules: make page-bundle")
    found = opened(address, color_scheme=scheme, bypass_csp=True)
    found.drawn()
    found.page.add_script_tag(path=str(AXE))
    results = found.page.evaluate("axe.run()")
    worst = [
        (violation["id"], node["html"][:200], node["failureSummary"])
        for violation in results["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
    assert worst == []
