"""The page as a reader meets it: opened from a file in a browser, by mouse and by keyboard, wide and narrow."""

import re
import shutil

import pytest

from kidney_ssl.report.page import read_study, write_page
from tests.unit.report.study_files import write_study

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on PATH")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    names = {"random": "initial/random", "rotation": "pretrain/rotation"}
    names |= {f"inpaint_{number}_with_a_long_name": "pretrain/inpaint_random" for number in range(6)}
    write_page(read_study(root, write_study(root, arms=names)), root / "index.html")
    return root / "index.html"


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # A container's root has no sandbox to start; the page is the project's own.
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, file):
    """Open the page at a size and in a colour scheme; what it says or asks for meanwhile fails the test."""
    contexts, said, asked = [], [], []

    def opened(width=1280, height=900, scheme="light"):
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()] * len(contexts)


def unfolded(page):
    """Open all folds."""
    page.eval_on_selector_all("details", "list => list.forEach(e => { e.open = true })")
    return page


def column(page, caption, place):
    """The words of a table's column, from top to bottom, without what is hidden from sight."""
    cells = page.locator(f".tabular:has(figcaption:text('{caption}')) tbody tr > :nth-child({place})")
    return [text.split(" (")[0].strip() for text in cells.all_text_contents()]


def test_every_picture_loads(visit):
    page = visit()
    unfolded(page)
    page.eval_on_selector_all("main img", "list => list.forEach(one => { one.loading = 'eager' })")
    width = "list => Promise.all(list.map(one => one.decode().then(() => one.naturalWidth)))"
    pictures = page.eval_on_selector_all("main img", width)
    assert len(pictures) > 50
    assert min(pictures) > 0


@pytest.mark.parametrize("width", [320, 360, 768, 1100, 1400])
def test_nothing_reaches_over_the_edge_and_wide_tables_scroll_inside_themselves(visit, width):
    page = visit(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.eval_on_selector_all(
        "details, [data-off]", "list => list.forEach(e => { e.open = true; e.removeAttribute('data-off') })"
    )
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide = page.eval_on_selector_all(".scroll", "list => list.filter(e => e.scrollWidth > e.clientWidth + 1).length")
    assert wide > 0
    page.wait_for_selector(".scroll + .hint")
    assert page.locator(".scroll + .hint").count() == wide


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844), (1920, 1080)])
def test_the_first_screen_has_the_headline_and_the_forest_plot(visit, width, height):
    page = visit(width, height)
    bottom = "e => e.getBoundingClientRect().bottom"
    assert page.locator("h1").evaluate(bottom) < height / 2
    plot = page.locator(".forest svg:visible")
    assert plot.count() == 1
    assert plot.evaluate("e => e.getBoundingClientRect().top") < height * 0.75
    if width > 1000:
        assert plot.evaluate(bottom) < height


@pytest.mark.parametrize("width", [360, 1280])
def test_at_most_12_screens_come_before_the_folds_and_text_in_pictures_is_11_px(visit, width):
    page = visit(width, 900)
    top = page.locator("#findings").evaluate("e => e.getBoundingClientRect().top + scrollY")
    assert top < 12 * 900
    page.eval_on_selector_all("details", "list => list.forEach(e => { e.open = true })")
    heights = page.eval_on_selector_all(
        "svg text",
        """list => list.filter(e => e.checkVisibility()).map(e => parseFloat(getComputedStyle(e).fontSize)
        * e.ownerSVGElement.getBoundingClientRect().width / e.ownerSVGElement.viewBox.baseVal.width)""",
    )
    assert len(heights) > 100
    assert min(heights) >= 10.99
    over = """list => list.filter(e => e.checkVisibility()).filter(e => {
        const [one, all] = [e, e.ownerSVGElement].map(e => e.getBoundingClientRect());
        return one.left < all.left - 0.5 || one.right > all.right + 0.5;
    }).map(e => e.textContent)"""
    assert page.eval_on_selector_all("svg text", over) == []


def test_a_link_into_a_fold_opens_it_and_lands_there(visit):
    page = visit()
    assert not page.locator("#cards h3").first.is_visible()
    page.locator("nav a[href='#cards']").click()
    page.wait_for_selector("#cards > details[open]")
    page.wait_for_timeout(1000)  # until it has scrolled there
    assert 0 <= page.locator("#cards").evaluate("e => e.getBoundingClientRect().top") < 120
    assert page.locator("#cards h3").first.is_visible()
    page.locator("nav a[href='#gradcam']").click()
    page.wait_for_function("Math.abs(document.getElementById('gradcam').getBoundingClientRect().top - 64) < 2")
    assert page.locator("#gradcam > details[open]").count() == 0  # what is folded within a shown section stays so


def test_a_comparison_is_a_card_on_a_phone(visit):
    page = visit(width=360)
    page.locator("#results > details").evaluate("e => { e.open = true }")
    table = page.locator("#results table.stacked").first
    assert table.evaluate("e => e.scrollWidth <= e.parentElement.clientWidth + 1")
    assert table.locator("thead").is_hidden()
    cell = table.locator("tbody tr").first.locator("td").last
    assert cell.is_visible()
    assert "verdict" in cell.evaluate("e => getComputedStyle(e, '::before').content")


def test_the_print_has_under_12_pages(chromium, file):
    page = chromium.new_page()
    page.goto(file.as_uri())
    assert 0 < len(re.findall(rb"/Type\s*/Page[^s]", page.pdf(format="A4"))) < 12
    page.close()


def test_a_table_is_sorted_by_keyboard_alone_and_says_how(visit):
    page = unfolded(visit())
    caption = "Test metrics by arm"
    head = page.locator(f".tabular:has(figcaption:text('{caption}')) th:has(button:text-is('accuracy'))")
    place = head.evaluate("e => e.cellIndex + 1")
    before = column(page, caption, place)
    assert before != sorted(before, key=float)
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert column(page, caption, place) == sorted(before, key=float)
    assert head.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Space")
    assert column(page, caption, place) == sorted(before, key=float, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    assert page.locator(f".tabular:has(figcaption:text('{caption}')) th[aria-sort=descending]").count() == 1
    rows = dict(zip(column(page, caption, 1), column(page, caption, place), strict=True))
    first = page.locator(f".tabular:has(figcaption:text('{caption}')) thead button").first
    first.click()
    assert list(zip(column(page, caption, 1), column(page, caption, place), strict=True)) == sorted(rows.items())


def test_what_is_missing_stands_last_whichever_way_a_table_is_sorted(visit):
    page = unfolded(visit())
    head = page.locator(
        ".tabular:has(figcaption:text('Cost of each')) th:has(button:text-is('slices per second')) button"
    )
    for _ in range(2):
        head.click()
        assert column(page, "Cost of each", 4)[-1] == "-"
        assert column(page, "Cost of each", 4)[0] != "-"


def test_groups_of_columns_come_and_go(visit):
    page = unfolded(visit())
    cell = page.locator("th[data-group='Calibration']").first
    button = page.get_by_role("button", name="Calibration", exact=True)
    assert not cell.is_visible()
    button.press("Enter")
    assert cell.is_visible()
    assert button.get_attribute("aria-pressed") == "true"
    button.press("Enter")
    assert not cell.is_visible()


def test_a_budgets_tables_come_for_another_one_everywhere(chromium, tmp_path):
    write_page(read_study(tmp_path, write_study(tmp_path, percents=(10, 100), extras=False)), tmp_path / "index.html")
    page = chromium.new_context().new_page()
    page.goto((tmp_path / "index.html").as_uri())
    unfolded(page)

    def shown():
        return page.locator("[data-budget]:visible").evaluate_all("list => list.map(e => e.dataset.budget)")

    assert shown() == ["100", "100"]
    page.get_by_role("button", name="10 %", exact=True).first.press("Enter")
    assert shown() == ["10", "10"]
    pressed = page.locator("[data-budget-choice][aria-pressed=true]").all_text_contents()
    assert pressed == ["10 %", "10 %"]
    page.context.close()


def test_filters_show_what_they_name_and_say_how_many(visit):
    page = unfolded(visit())
    shown = page.locator("#gradcam .card:visible")
    status = page.locator("#shown[aria-live=polite]")
    arm = page.locator("select[data-filter=arm]")
    assert (arm.input_value(), shown.count(), status.inner_text()) == ("Random weights", 8, "8 of 56 pictures shown")
    arm.select_option("")
    assert (shown.count(), status.inner_text()) == (56, "56 of 56 pictures shown")
    page.get_by_role("button", name="FN", exact=False).first.press("Enter")
    assert set(shown.evaluate_all("list => list.map(e => e.dataset.outcome)")) == {"FN"}
    assert (shown.count(), status.inner_text()) == (14, "14 of 56 pictures shown")
    arm.select_option("Rotation")
    page.locator("select[data-filter=kind]").select_option("error")
    assert shown.evaluate_all("list => list.map(e => [e.dataset.arm, e.dataset.kind])") == [["Rotation", "error"]]
    assert status.inner_text() == "1 of 56 pictures shown"
    page.get_by_role("button", name="every outcome").click()
    assert shown.count() == 4


def test_parameters_are_filtered_by_their_mark(visit):
    page = unfolded(visit())
    rows = page.locator("#departure-table tbody tr:visible")
    every = rows.count()
    page.locator("button[data-mark='?']").press("Space")
    marks = rows.evaluate_all("list => list.map(e => e.dataset.marks.split(' '))")
    assert 0 < len(marks) < every
    assert all("?" in one for one in marks)
    assert page.locator("#marked").inner_text() == f"{len(marks)} of {every} parameters shown"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_switch_turns_the_systems_colours_round_and_back(visit, scheme):
    page = visit(scheme=scheme)

    def brightness(selector, what):
        colour = page.locator(selector).first.evaluate(f"e => getComputedStyle(e).{what}")
        return sum(int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]) / 765

    first = brightness("body", "backgroundColor")
    assert (first > 0.9) == (scheme == "light")
    line = brightness("#thresholds svg path[style*='var(--accent)']", "stroke")
    switch = page.locator("#theme")
    switch.press("Enter")
    assert (brightness("body", "backgroundColor") > 0.9) == (scheme == "dark")
    assert abs(brightness("#thresholds svg path[style*='var(--accent)']", "stroke") - line) > 0.2
    assert abs(brightness("body", "color") - brightness("body", "backgroundColor")) > 0.7
    switch.press("Enter")
    assert brightness("body", "backgroundColor") == first


def test_the_keyboard_starts_at_the_skip_link_and_sees_where_it_is(visit):
    page = visit()
    page.keyboard.press("Tab")
    link = page.locator(".skip")
    assert link.evaluate("e => e === document.activeElement && e.getBoundingClientRect().left >= 0")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert float(outline.removesuffix("px")) >= 2


def test_a_picture_opens_large_and_escape_closes_it(visit):
    page = visit()
    button = page.locator("button.zoom").first
    button.press("Enter")
    assert page.locator("dialog").is_visible()
    assert page.locator("dialog img").get_attribute("alt") == button.locator("img").get_attribute("alt")
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    assert button.evaluate("e => e === document.activeElement")


def test_every_control_has_a_name_and_every_section_is_in_the_contents(visit):
    page = visit()
    nameless = "list => list.filter(e => !(e.getAttribute('aria-label') || e.textContent || e.labels?.length)).length"
    assert page.eval_on_selector_all("main button, main select", nameless) == 0
    sections = page.eval_on_selector_all("main > section", "list => list.map(e => '#' + e.id)")
    assert page.eval_on_selector_all("nav a", "list => list.map(e => e.getAttribute('href'))") == sections


def test_without_scripts_everything_is_still_there(chromium, file):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    for fold in page.locator("#gradcam summary").all():
        fold.click()
    assert page.locator("#gradcam .card:visible").count() == 56
    assert page.locator("#theme").is_hidden()
    context.close()
